(** C05 (Grant et al. 2018): K gradient steps on a quadratic are a Gaussian MAP estimate, in the
    norm of Lambda.

    H is a self-adjoint operator of any signature on any inner product space, S = alpha sum_{k<K}
      (I - alpha H)^k, T its
    inverse, and Lambda = T - H = (I - alpha H)^K T. *)

From Coq Require Import Reals Lra.
From Proofs Require Import space.
Open Scope R_scope.

Section Prior.
Variable V : space.
Variables (H : V -> V) (g theta : V) (alpha constant : R).
Hypothesis H_add : forall v w, H (v +: w) = H v +: H w.
Hypothesis H_scale : forall a v, H (a *: v) = a *: H v.
Hypothesis H_self : forall v w, <<H v, w>> = <<v, H w>>.

Definition quadratic (y : V) := constant + <<g, y -: theta>> + 1 / 2 * <<H (y -: theta), y -:
  theta>>.
Fixpoint gd (K : nat) : V :=
  match K with O => theta | S k => gd k -: alpha *: (g +: H (gd k -: theta)) end.

Definition once (v : V) := v -: alpha *: H v.
Fixpoint power (K : nat) (v : V) : V := match K with O => v | S k => once (power k v) end.
Fixpoint series (K : nat) (v : V) : V :=
  match K with O => 0 *: v | S k => series k v +: alpha *: power k v end.

Ltac operators := unfold once; rewrite ?H_add, ?H_scale; vectors.

Lemma power_once K v : power K (once v) = once (power K v).
Proof. induction K; cbn; congruence. Qed.

Lemma once_self v w : <<once v, w>> = <<v, once w>>.
Proof. unfold once. expand. now rewrite H_self. Qed.

Lemma power_self K v w : <<power K v, w>> = <<v, power K w>>.
Proof.
  revert v w. induction K; intros; cbn; [reflexivity |].
  now rewrite once_self, IHK, power_once.
Qed.

Lemma series_self K v w : <<series K v, w>> = <<v, series K w>>.
Proof. induction K; cbn; expand; [ring | now rewrite IHK, power_self]. Qed.

Lemma H_series K v : H (series K v) = v -: power K v.
Proof.
  induction K; cbn.
  - rewrite H_scale. vectors.
  - rewrite H_add, H_scale, IHK. unfold once. vectors.
Qed.

Lemma gd_closed K : gd K = theta -: series K g.
Proof.
  induction K; cbn; [vectors |]. rewrite IHK.
  replace ((theta -: series K g) -: theta) with (-1 *: series K g) by vectors.
  rewrite H_scale, H_series. vectors.
Qed.

Variables (K : nat) (T : V -> V).
Hypothesis inverse_left : forall v, T (series K v) = v.
Hypothesis inverse_right : forall v, series K (T v) = v.
Hypothesis positive : forall v, 0 < sq v -> 0 < <<series K v, v>>.

Definition Lambda (v : V) := T v -: H v.
Definition penalised (y : V) := quadratic y + 1 / 2 * <<Lambda (y -: theta), y -: theta>>.

Theorem precision_form v : Lambda v = power K (T v).
Proof. unfold Lambda. rewrite <- (inverse_right v) at 2. rewrite H_series. vectors. Qed.

Lemma penalised_gap y :
  let w := T (y -: theta) +: g in penalised y - penalised (gd K) = 1 / 2 * <<series K w, w>>.
Proof.
  intro w.
  assert (E : forall v, penalised (theta +: series K v)
                        = constant + <<g, series K v>> + 1 / 2 * <<v, series K v>>).
  { intro v. unfold penalised, quadratic, Lambda.
    replace ((theta +: series K v) -: theta) with (series K v) by vectors.
    rewrite inverse_left. expand. ring. }
  assert (A : forall v u, series K (v +: u) = series K v +: series K u).
  { intros. apply ext. intro t. now rewrite series_self, !dot_add, !series_self. }
  assert (M : forall v, series K (-1 *: v) = -1 *: series K v).
  { intros. apply ext. intro t. now rewrite series_self, !dot_scale, series_self. }
  assert (Y : y = theta +: series K (T (y -: theta))) by (rewrite inverse_right; vectors).
  rewrite Y at 1. rewrite gd_closed, <- M, !E, M. unfold w. generalize (T (y -: theta)). intro tau.
  rewrite A. expand.
  rewrite (dot_sym V (series K tau) tau), (dot_sym V (series K tau) g), (series_self K g tau),
    (dot_sym V (series K g) g). lra.
Qed.

(** The K-th iterate is the one minimiser of the quadratic plus |y - theta|^2_Lambda / 2. *)
Theorem implicit_prior y : penalised (gd K) <= penalised y /\ (y <> gd K -> penalised (gd K) <
  penalised y).
Proof.
  pose proof (penalised_gap y) as G. cbn in G. revert G.
  set (w := T (y -: theta) +: g). intro G.
  destruct (dot_pos V w) as [P | Z].
  - pose proof (positive w P). split; intros; lra.
  - assert (W : w = 0 *: w).
    { apply ext. intro u. pose proof (cauchy_schwarz V w u) as C. rewrite <- Z in C. expand. nra. }
    assert (E : y = gd K).
    { rewrite gd_closed. replace y with (theta +: (y -: theta)) at 1 by vectors.
      rewrite <- (inverse_right (y -: theta)). replace (T (y -: theta)) with (w -: g) by (unfold w;
        vectors).
      rewrite W. apply ext. intro u. expand. rewrite !series_self. expand. ring. }
    split; intros; [right; now rewrite E | contradiction].
Qed.
End Prior.

(** One eigenvalue eta at a time, r = 1 - alpha eta, s = alpha sum_{k<K} r^k: lambda = r^K/s, and
    the boxed sum. *)
Section Eigenvalue.
Variables (alpha eta : R).
Let r := 1 - alpha * eta.
Fixpoint total (term : nat -> R) (K : nat) := match K with O => 0 | S k => total term k + term k
  end.

Lemma geometric K : alpha * eta * total (pow r) K = 1 - r ^ K.
Proof. induction K as [| K IH]; cbn [total pow]; [ring |]. unfold r in *. nra. Qed.

Theorem eigenvalue_precision K : let s := alpha * total (pow r) K in
  s <> 0 -> (eta + r ^ K / s) * s = 1.
Proof.
  intros s Hs. pose proof (geometric K) as G.
  replace ((eta + r ^ K / s) * s) with (eta * s + r ^ K) by now field. unfold s. lra.
Qed.

Theorem boxed_sum K : r <> 0 -> alpha * total (pow r) K <> 0 ->
  1 / (r ^ K / (alpha * total (pow r) K)) = alpha * total (fun j => / r ^ S j) K.
Proof.
  intros Hr Hs.
  assert (E : total (pow r) K = r ^ K * total (fun j => / r ^ S j) K).
  { clear Hs. induction K as [| K IH]; cbn [total]; [cbn; ring |].
    pose proof (pow_nonzero r (S K) Hr). rewrite Rmult_plus_distr_l, Rinv_r by trivial.
    replace (r ^ S K * total (fun j => / r ^ S j) K) with (r * total (pow r) K)
      by (rewrite IH; cbn [pow]; ring).
    pose proof (geometric K) as G. replace (alpha * eta) with (1 - r) in G by (unfold r; ring).
      lra. }
  pose proof (pow_nonzero r K Hr) as P. rewrite E in *. field. repeat split; trivial.
  - intro Z. apply Hs. rewrite Z. ring.
  - intro Z. apply Hs. rewrite Z. ring.
Qed.
End Eigenvalue.
