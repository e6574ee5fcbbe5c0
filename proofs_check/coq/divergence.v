(** T7: an explicit BlockIAF and a strongly convex quadratic on which the dual iteration diverges
    for every rate. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Proofs Require Import space constants.
Open Scope R_scope.

Definition plane : space := pair line line.

(** g(z) = (s z_1, s z_2 + 4 z_1); the loss is <phi, A phi>/2 with gradient A phi. *)
Definition g (z : plane) : plane := (scale * fst z, scale * snd z + shift_slope * fst z).
Definition gradient (phi : plane) : plane :=
  (tilt_diagonal * fst phi + tilt_coupling * snd phi, tilt_coupling * fst phi + tilt_diagonal * snd
    phi).

Fixpoint dual (alpha : R) (start : plane) (k : nat) : plane :=
  match k with O => start | S k => dual alpha start k -: alpha *: gradient (g (dual alpha start k))
    end.

Fixpoint descent (alpha : R) (start : plane) (k : nat) : plane :=
  match k with O => start | S k => descent alpha start k -: alpha *: gradient (descent alpha start
    k) end.

Definition w1 : plane := left_1.
Definition w2 : plane := left_2.

Ltac numbers := unfold w1, w2, g, gradient, left_1, left_2, scale, shift_slope, tilt_diagonal,
  tilt_coupling,
  growth_1, growth_2, gd_edge; cbn [vec plane pair line dot add space.scale fst snd].

(** J A has the eigenvalues -growth_1 and -growth_2: its characteristic polynomial. *)
Theorem spectrum (x : R) : let J11 := scale in let J21 := shift_slope in let J22 := scale in
  let a := tilt_diagonal in let b := tilt_coupling in
  (J11 * a - x) * (J21 * b + J22 * a - x) - (J11 * b) * (J21 * a + J22 * b)
  = (x + growth_1) * (x + growth_2).
Proof. cbv zeta. numbers. field. Qed.

Lemma growth (alpha : R) (start : plane) (k : nat) :
  <<w1, g (dual alpha start k)>>
    = (1 + alpha * growth_1) ^ k * <<w1, g start>> /\
  <<w2, g (dual alpha start k)>>
    = (1 + alpha * growth_2) ^ k * <<w2, g start>>.
Proof.
  induction k as [| k [I1 I2]]; [cbn [dual pow]; split; ring |].
  cbn [dual pow]. rewrite !Rmult_assoc, <- I1, <- I2. destruct (dual alpha start k) as [x y].
  split; numbers; field.
Qed.

Lemma escape (rate c size bound : R) : 0 < rate -> c <> 0 -> 0 < size ->
  exists N, forall k value, (N <= k)%nat -> ((1 + rate) ^ k * c) * ((1 + rate) ^ k * c) <= size *
    value ->
    bound <= value.
Proof.
  intros Hr Hc Hs. assert (C : 0 < c * c) by nra.
  pose proof (Rabs_pos bound) as B.
  destruct (archimed_cor1 (rate * (c * c) / (size * Rabs bound + 1))) as (N & HN & PN).
  { apply Rdiv_lt_0_compat; nra. }
  apply lt_0_INR in PN.
  apply Rmult_lt_compat_l with (r := INR N * (size * Rabs bound + 1)) in HN;
    [| apply Rmult_lt_0_compat; nra].
  replace (INR N * (size * Rabs bound + 1) * / INR N) with (size * Rabs bound + 1) in HN
    by (field; lra).
  replace (INR N * (size * Rabs bound + 1) * (rate * (c * c) / (size * Rabs bound + 1)))
    with (INR N * (rate * (c * c))) in HN by (field; nra).
  exists N. intros k value Hk H.
  pose proof (poly k rate Hr) as P. apply le_INR in Hk.
  set (x := INR k * rate) in *. assert (X : 0 <= x) by (pose proof (pos_INR k); unfold x; nra).
  assert (Q : size * Rabs bound <= x * (c * c)).
  { unfold x. assert (INR N * (rate * (c * c)) <= INR k * (rate * (c * c))) by
      (apply Rmult_le_compat_r; nra). lra. }
  assert (S : x <= (1 + rate) ^ k * (1 + rate) ^ k) by nra.
  assert (T : x * (c * c) <= (1 + rate) ^ k * (1 + rate) ^ k * (c * c)) by
    (apply Rmult_le_compat_r; lra).
  apply Rle_trans with (1 := Rle_abs bound). apply Rmult_le_reg_l with (1 := Hs). lra.
Qed.

Theorem dual_iteration_diverges (alpha : R) (start : plane) : 0 < alpha -> 0 < sq (g start) ->
  forall bound, exists N, forall k, (N <= k)%nat -> bound <= sq (g (dual alpha start k)).
Proof.
  intros Ha Hs bound.
  pose proof (fun k => cauchy_schwarz plane w1 (g (dual alpha start k))) as C1.
  pose proof (fun k => cauchy_schwarz plane w2 (g (dual alpha start k))) as C2.
  destruct (Req_dec <<w1, g start>> 0) as [Z | F].
  - assert (F : <<w2, g start>> <> 0).
    { intro Z'. revert Z Z' Hs. generalize (g start). intros [x y]. numbers. intros. nra. }
    destruct (escape (alpha * growth_2) <<w2, g start>> (sq w2) bound) with (2 := F) as [N HN];
      [numbers; lra | numbers; lra |].
    exists N. intros k Hk. apply (HN k _ Hk). destruct (growth alpha start k) as [_ <-]. apply C2.
  - destruct (escape (alpha * growth_1) <<w1, g start>> (sq w1) bound) with (2 := F) as [N HN];
      [numbers; lra | numbers; lra |].
    exists N. intros k Hk. apply (HN k _ Hk). destruct (growth alpha start k) as [<- _]. apply C1.
Qed.

Lemma descent_modes (alpha : R) (start : plane) (k : nat) :
  let '(x, y) := descent alpha start k in
  x + y = (1 - alpha * (tilt_diagonal + tilt_coupling)) ^ k * (fst start + snd start) /\
  x - y = (1 - alpha * (tilt_diagonal - tilt_coupling)) ^ k * (fst start - snd start).
Proof.
  induction k as [| k IH]; [destruct start; cbn; split; ring |].
  cbn [descent pow]. destruct (descent alpha start k) as [x y]. destruct IH as [I1 I2].
  rewrite !Rmult_assoc, <- I1, <- I2. numbers. split; field.
Qed.

(** Gradient descent on the same loss tends to the minimum from every start iff 0 < alpha < 4/3. *)
Theorem gd_converges_iff (alpha : R) :
  (forall start, is_lim_seq (fun k => sq (descent alpha start k)) 0) <-> 0 < alpha < gd_edge.
Proof.
  set (p := 1 - alpha * (tilt_diagonal + tilt_coupling)).
  set (q := 1 - alpha * (tilt_diagonal - tilt_coupling)).
  assert (E : forall start k, sq (descent alpha start k)
    = (p * p) ^ k * ((fst start + snd start) ^ 2 / 2) + (q * q) ^ k * ((fst start - snd start) ^ 2
      / 2)).
  { intros start k. pose proof (descent_modes alpha start k) as M. fold p q in M.
    destruct (descent alpha start k) as [x y]. destruct M as [M1 M2].
    rewrite !Rpow_mult_distr. change (x * x + y * y =
      p ^ k * p ^ k * ((fst start + snd start) ^ 2 / 2) + q ^ k * q ^ k * ((fst start - snd start)
        ^ 2 / 2)).
    replace (x * x + y * y) with (((x + y) * (x + y) + (x - y) * (x - y)) / 2) by field.
    rewrite M1, M2. field. }
  split.
  - intro H.
    assert (Q : q * q < 1).
    { destruct (Rlt_dec (q * q) 1) as [| N]; [trivial | exfalso].
      specialize (H (1, -1)). apply is_lim_seq_spec in H. destruct (H (mkposreal 1 Rlt_0_1)) as [n
        Hn].
      specialize (Hn n (Nat.le_refl n)). rewrite E in Hn. cbn [fst snd pos] in Hn.
      assert (1 <= (q * q) ^ n) by (apply pow_R1_Rle; lra).
      rewrite Rminus_0_r in Hn. apply Rabs_def2 in Hn. nra. }
    revert Q. unfold q. numbers. nra.
  - intros Ha start.
    assert (P1 : Rabs (p * p) < 1).
    { rewrite Rabs_pos_eq by nra. revert Ha. unfold p. numbers. nra. }
    assert (Q1 : Rabs (q * q) < 1).
    { rewrite Rabs_pos_eq by nra. revert Ha. unfold q. numbers. nra. }
    apply (is_lim_seq_ext _ _ _ (fun k => eq_sym (E start k))).
    replace (Finite 0) with (Finite (0 * ((fst start + snd start) ^ 2 / 2)
                                     + 0 * ((fst start - snd start) ^ 2 / 2))) by (f_equal; ring).
    apply is_lim_seq_plus'; apply is_lim_seq_mult'; try apply is_lim_seq_const;
      now apply is_lim_seq_geom.
Qed.
