(** RB: slopes of the gates, the modulus of a certified map of two blocks, and a box by interval
    arithmetic. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Interval.Float Require Import Specific_stdz Specific_ops.
From Interval Require Tactic.
From Proofs Require Import space monotone constants.
Open Scope R_scope.

(** Integers only: the usual [interval] computes with the processor's floats, whose laws are
    further axioms. *)
Module Integers := SpecificFloat StdZRadix2.
Module Exact := Tactic.IntervalTactic Integers.
Import Tactic Exact.

Definition sigmoid (x : R) := 1 / (1 + exp (- x)).
Definition tanh (x : R) := 2 * sigmoid (2 * x) - 1.

Lemma sigmoid_range x : 0 < sigmoid x < 1.
Proof.
  pose proof (exp_pos (- x)). unfold sigmoid. split; [apply Rdiv_lt_0_compat; lra |].
  apply Rmult_lt_reg_r with (1 + exp (- x)); [lra |]. field_simplify; lra.
Qed.

Lemma sigmoid_derivative x : is_derive sigmoid x (sigmoid x * (1 - sigmoid x)).
Proof. unfold sigmoid. pose proof (exp_pos (- x)). auto_derive; [lra | field; lra]. Qed.

Theorem sigmoid_slope_bound x : 0 < sigmoid x * (1 - sigmoid x) <= sigmoid_slope /\
  sigmoid 0 * (1 - sigmoid 0) = sigmoid_slope.
Proof.
  pose proof (sigmoid_range x). unfold sigmoid_slope. repeat split; [nra | |].
  - pose proof (Rle_0_sqr (sigmoid x - 1 / 2)). unfold Rsqr in *. lra.
  - unfold sigmoid. rewrite Ropp_0, exp_0. field.
Qed.

Lemma sigmoid_lipschitz x y : Rabs (sigmoid x - sigmoid y) <= sigmoid_slope * Rabs (x - y).
Proof.
  apply (bounded_variation sigmoid (fun t => sigmoid t * (1 - sigmoid t))). intros t _.
  split; [apply sigmoid_derivative |].
  destruct (sigmoid_slope_bound t) as [B _]. rewrite Rabs_pos_eq; lra.
Qed.

(** The library's gate is tanh(a/2): slope at most 1/2; tanh itself: at most 1. *)
Theorem gate_lipschitz x y : Rabs (tanh (x / 2) - tanh (y / 2)) <= gate_slope * Rabs (x - y).
Proof.
  unfold tanh. replace (2 * (x / 2)) with x by field. replace (2 * (y / 2)) with y by field.
  replace (2 * sigmoid x - 1 - (2 * sigmoid y - 1)) with (2 * (sigmoid x - sigmoid y)) by ring.
  rewrite Rabs_mult, (Rabs_pos_eq 2) by lra. pose proof (sigmoid_lipschitz x y).
  unfold gate_slope, sigmoid_slope in *. lra.
Qed.

Lemma tanh_lipschitz x y : Rabs (tanh x - tanh y) <= Rabs (x - y).
Proof.
  pose proof (gate_lipschitz (2 * x) (2 * y)) as G.
  replace (2 * x / 2) with x in G by field. replace (2 * y / 2) with y in G by field.
  replace (2 * x - 2 * y) with (2 * (x - y)) in G by ring.
  rewrite Rabs_mult, (Rabs_pos_eq 2) in G by lra. unfold gate_slope in G. lra.
Qed.

Lemma tanh_range x : Rabs (tanh x) <= 1.
Proof. unfold tanh. pose proof (sigmoid_range (2 * x)). apply Rabs_le. lra. Qed.

(** g(v, t) = (before v, a t + tau c tanh(t/c) gate(v) + nu(v)): v all earlier blocks, t a
    coordinate of the next. *)
Section TwoBlocks.
Variable V : space.
Variables (before : V -> V) (gate nu : V -> R) (a low tau c gate_lip nu_lip : R).
Hypothesis tau_pos : 0 <= tau.
Hypothesis lips_pos : 0 <= gate_lip /\ 0 <= nu_lip.
Hypothesis c_pos : 0 < c.
Hypothesis a_large : low + tau <= a.
Hypothesis before_monotone : strongly_monotone V before low.
Hypothesis gate_range : forall v, Rabs (gate v) <= 1.
Hypothesis gate_slopes : forall v w, Rabs (gate v - gate w) <= gate_lip * norm V (v -: w).
Hypothesis nu_slopes : forall v w, Rabs (nu v - nu w) <= nu_lip * norm V (v -: w).

Definition certified (x : pair V line) : pair V line :=
  (before (fst x), a * snd x + tau * c * tanh (snd x / c) * gate (fst x) + nu (fst x)).
Definition eta := tau * c * gate_lip + nu_lip.

Lemma saturated_difference t u : Rabs (c * (tanh (t / c) - tanh (u / c))) <= Rabs (t - u).
Proof.
  rewrite Rabs_mult, (Rabs_pos_eq c) by lra.
  replace (Rabs (t - u)) with (c * Rabs (t / c - u / c)).
  - apply Rmult_le_compat_l; [lra | apply tanh_lipschitz].
  - rewrite <- (Rabs_pos_eq c) at 1 by lra. rewrite <- Rabs_mult. f_equal. field. lra.
Qed.

Theorem certified_monotone :
  strongly_monotone (pair V line) certified (low - coupling_share * eta).
Proof.
  intros [v t] [w u].
  set (d := t - u). set (n := norm V (v -: w)).
  set (same := c * (tanh (t / c) - tanh (u / c)) * gate v).
  set (coupled := tau * c * tanh (u / c) * (gate v - gate w) + (nu v - nu w)).
  change ((low - coupling_share * eta) * (sq (v -: w) + (t + -1 * u) * (t + -1 * u))
    <= <<before v -: before w, v -: w>>
       + (a * t + tau * c * tanh (t / c) * gate v + nu v
          + -1 * (a * u + tau * c * tanh (u / c) * gate w + nu w)) * (t + -1 * u)).
  replace ((a * t + tau * c * tanh (t / c) * gate v + nu v
          + -1 * (a * u + tau * c * tanh (u / c) * gate w + nu w)) * (t + -1 * u))
    with (a * (d * d) + tau * (same * d) + coupled * d) by (unfold d, same, coupled; ring).
  replace ((t + -1 * u) * (t + -1 * u)) with (d * d) by (unfold d; ring).
  assert (N : sq (v -: w) = n * n) by (unfold n, norm; now rewrite sqrt_sqrt by apply dot_pos).
  pose proof (before_monotone v w) as B. rewrite N in *.
  assert (N0 : 0 <= n) by apply sqrt_pos.
  assert (S : - (d * d) <= same * d).
  { assert (A : Rabs (same * d) <= Rabs d * 1 * Rabs d).
    { unfold same. rewrite !Rabs_mult. apply Rmult_le_compat_r; [apply Rabs_pos |].
      rewrite <- Rabs_mult. apply Rmult_le_compat; try apply Rabs_pos;
        [apply saturated_difference | apply gate_range]. }
    replace (Rabs d * 1 * Rabs d) with (d * d) in A
      by (rewrite Rmult_1_r, <- Rabs_mult, Rabs_pos_eq; nra).
    pose proof (Rle_abs (- (same * d))) as Q. rewrite Rabs_Ropp in Q. lra. }
  assert (C : Rabs coupled <= eta * n).
  { unfold coupled, eta. apply Rle_trans with (1 := Rabs_triang _ _). rewrite Rmult_plus_distr_r.
    apply Rplus_le_compat; [| apply nu_slopes].
    rewrite !Rabs_mult, (Rabs_pos_eq tau), (Rabs_pos_eq c) by lra.
    replace (tau * c * gate_lip * n) with (tau * c * 1 * (gate_lip * n)) by ring.
    apply Rmult_le_compat; try apply Rabs_pos; [| | apply gate_slopes].
    - repeat apply Rmult_le_pos; try lra. apply Rabs_pos.
    - apply Rmult_le_compat_l; [nra | apply tanh_range]. }
  assert (K : - (eta * n * Rabs d) <= coupled * d).
  { pose proof (Rle_abs (- (coupled * d))) as Q. rewrite Rabs_Ropp, Rabs_mult in Q.
    assert (Rabs coupled * Rabs d <= eta * n * Rabs d) by
      (apply Rmult_le_compat_r; [apply Rabs_pos | trivial]). lra. }
  assert (D : Rabs d * Rabs d = d * d) by (rewrite <- Rabs_mult, Rabs_pos_eq; nra).
  assert (P : 0 <= eta) by (unfold eta; destruct lips_pos; repeat apply Rplus_le_le_0_compat;
    repeat apply Rmult_le_pos; lra).
  assert (Y : eta * n * Rabs d <= 1 / 2 * eta * (n * n + d * d)).
  { pose proof (Rle_0_sqr (n - Rabs d)) as Q. unfold Rsqr in Q. rewrite <- D. nra. }
  unfold coupling_share. nra.
Qed.
End TwoBlocks.

(** The library's defaults add up to the m and M that its constructor promises. *)
Theorem defaults_keep_the_promise :
  certified_low - certified_tau - coupling_share * certified_eta = certified_m /\
  certified_high + certified_tau + certified_eta <= certified_M.
Proof.
  unfold certified_low, certified_high, certified_tau, certified_eta, certified_m, certified_M,
    coupling_share. lra.
Qed.

(** Another way to a coordinate's slope, at the defaults: interval arithmetic over a box. *)
Definition slope (a gate t : R) :=
  a + certified_tau * (4 * exp (2 * t / certified_reach) / (1 + exp (2 * t / certified_reach)) ^ 2)
      * gate.

Lemma slope_is_derivative a gate t : is_derive
  (fun t => a * t + certified_tau * certified_reach * tanh (t / certified_reach) * gate) t
  (slope a gate t).
Proof.
  unfold tanh, sigmoid, slope, certified_reach. set (e := exp (2 * t / 1)).
  assert (P : 0 < e) by apply exp_pos.
  assert (Q : exp (- (2 * (t * / 1))) = / e) by (unfold e; rewrite exp_Ropp; do 2 f_equal; field).
  auto_derive; rewrite ?Q.
  - pose proof (Rinv_0_lt_compat e P). lra.
  - field. repeat split; lra.
Qed.

Theorem coordinate_slope_box a gate t :
  certified_low <= a <= certified_high -> -1 <= gate <= 1 -> -10 <= t <= 10 ->
  certified_m + coupling_share * certified_eta - 1 / 1000 <= slope a gate t
    <= certified_M - certified_eta.
Proof.
  unfold slope, certified_low, certified_high, certified_tau, certified_eta, certified_m,
    certified_M,
    certified_reach, coupling_share.
  intros. split; interval with (i_bisect t, i_autodiff t, i_prec 40).
Qed.
