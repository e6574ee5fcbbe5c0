(** C07 g, h and GD's O(1/K): mirror descent with step 1/L, from convexity and relative smoothness
    alone. *)

From Coq Require Import Reals Lra Lia.
From Proofs Require Import space.
Open Scope R_scope.

Section MirrorDescent.
Variable V : space.
Variables (f h : V -> R) (df dh : V -> V) (L mu : R).
Definition bregman (x y : V) := h x - h y - <<dh y, x -: y>>.

(** f - mu h and L h - f are convex; h is convex. (mu = 0: f is merely convex.) *)
Hypothesis L_pos : 0 < L.
Hypothesis convex : forall x y, f y + <<df y, x -: y>> + mu * bregman x y <= f x.
Hypothesis smooth : forall x y, f x <= f y + <<df y, x -: y>> + L * bregman x y.
Hypothesis h_convex : forall x y, 0 <= bregman x y.

Variable phi : nat -> V.
Hypothesis step : forall k, L *: (dh (phi (S k)) -: dh (phi k)) = -1 *: df (phi k).

Lemma three_points (x y z : V) :
  <<dh y -: dh x, z -: y>> = bregman z x - bregman z y - bregman y x.
Proof. unfold bregman. expand. ring. Qed.

Lemma one_step (k : nat) (x : V) :
  f (phi (S k)) <= f x + (L - mu) * bregman x (phi k) - L * bregman x (phi (S k)).
Proof.
  pose proof (convex x (phi k)) as C. pose proof (smooth (phi (S k)) (phi k)) as M.
  pose proof (three_points (phi k) (phi (S k)) x) as T.
  assert (E : L * <<dh (phi (S k)) -: dh (phi k), x -: phi (S k)>>
              = - <<df (phi k), x -: phi (S k)>>).
  { rewrite <- dot_scale, step, dot_scale. ring. }
  assert (A : <<df (phi k), x -: phi k>> - <<df (phi k), phi (S k) -: phi k>>
              = <<df (phi k), x -: phi (S k)>>) by (expand; ring).
  rewrite T in E. lra.
Qed.

Theorem relative_contraction (best : V) : (forall x, f best <= f x) -> mu <= L ->
  forall K, bregman best (phi K) <= (1 - mu / L) ^ K * bregman best (phi 0%nat).
Proof.
  intros B M. induction K; [cbn; lra |].
  pose proof (one_step K best) as S1. pose proof (B (phi (S K))) as S2.
  assert (P : bregman best (phi (S K)) <= (1 - mu / L) * bregman best (phi K)).
  { apply Rmult_le_reg_l with (1 := L_pos). field_simplify; lra. }
  assert (Q : 0 <= 1 - mu / L).
  { apply Rmult_le_reg_l with (1 := L_pos). field_simplify; lra. }
  cbn [pow]. rewrite Rmult_assoc. apply Rle_trans with (1 := P). now apply Rmult_le_compat_l.
Qed.

Theorem mirror_descent_rate : 0 <= mu ->
  forall K x, f (phi (S K)) - f x <= L * bregman x (phi 0%nat) / INR (S K).
Proof.
  intros Hmu K x.
  assert (Step : forall k y, f (phi (S k)) <= f y + L * bregman y (phi k) - L * bregman y (phi (S
    k))).
  { intros k y. pose proof (one_step k y). pose proof (h_convex y (phi k)). nra. }
  assert (Z : forall y, bregman y y = 0) by (intro; unfold bregman; expand; ring).
  assert (T : INR (S K) * (f (phi (S K)) - f x) <= L * (bregman x (phi 0%nat) - bregman x (phi (S
    K)))).
  { induction K as [| K IH]; [specialize (Step 0%nat x); cbn; lra |].
    pose proof (Step (S K) x) as A. pose proof (Step (S K) (phi (S K))) as D. rewrite Z in D.
    pose proof (h_convex (phi (S K)) (phi (S (S K)))) as N.
    rewrite S_INR. pose proof (pos_INR (S K)).
    assert (f (phi (S (S K))) <= f (phi (S K))) by nra. nra. }
  pose proof (h_convex x (phi (S K))) as N.
  assert (P : 0 < INR (S K)) by (apply lt_0_INR; lia).
  apply Rmult_le_reg_l with (1 := P). field_simplify; nra.
Qed.
End MirrorDescent.

(** GD is the case h = |.|^2/2: f(x_K) - f(x) <= L |x - x_0|^2 / (2 K). *)
Theorem gradient_descent_rate (V : space) (f : V -> R) (df : V -> V) (L : R) (phi : nat -> V) :
  0 < L ->
  (forall x y, f y + <<df y, x -: y>> <= f x) ->
  (forall x y, f x <= f y + <<df y, x -: y>> + L / 2 * sq (x -: y)) ->
  (forall k, phi (S k) = phi k -: 1 / L *: df (phi k)) ->
  forall K x, f (phi (S K)) - f x <= L * sq (x -: phi 0%nat) / (2 * INR (S K)).
Proof.
  intros HL C M step K x.
  set (h := fun v : V => sq v / 2).
  assert (D : forall a b, bregman V h (fun v => v) a b = sq (a -: b) / 2).
  { intros. unfold bregman, h. expand. rewrite (dot_sym V b a). field. }
  assert (R : f (phi (S K)) - f x <= L * bregman V h (fun v => v) x (phi 0%nat) / INR (S K)).
  { apply (mirror_descent_rate V f h df (fun v => v) L 0); intros; try lra; rewrite ?D.
    - specialize (C x0 y). lra.
    - specialize (M x0 y). lra.
    - pose proof (dot_pos V (x0 -: y)). lra.
    - rewrite step. vectors. field. lra. }
  rewrite D in R. apply Rle_trans with (1 := R). right. field. apply not_0_INR. lia.
Qed.
