(** Strongly monotone maps on an inner product space: the inverse (P1, RB) and the dual step (T6).
    *)

From Coq Require Import Reals Lra.
From Proofs Require Import space.
Open Scope R_scope.

Section Monotone.
Variable V : space.
Variables (g : V -> V) (m : R).
Definition norm (v : V) := sqrt (sq v).
Definition strongly_monotone := forall x y, m * sq (x -: y) <= <<g x -: g y, x -: y>>.

Lemma strongly_monotone_expands :
  0 < m -> strongly_monotone -> forall x y, m * norm (x -: y) <= norm (g x -: g y).
Proof.
  intros Hm H x y. specialize (H x y). unfold norm.
  rewrite <- (sqrt_square m) at 1 by lra. rewrite <- sqrt_mult_alt by nra. apply sqrt_le_1_alt.
  revert H. generalize (g x -: g y) (x -: y). intros image gap H.
  pose proof (dot_pos V (image -: m *: gap)) as P. revert P. expand.
  rewrite (dot_sym V gap image). nra.
Qed.

(** The inverse of an m-strongly monotone map is Lipschitz with constant 1/m. *)
Theorem inverse_lipschitz (inverse : V -> V) :
  0 < m -> strongly_monotone -> (forall y, g (inverse y) = y) ->
  forall y z, norm (inverse y -: inverse z) <= 1 / m * norm (y -: z).
Proof.
  intros Hm H E y z.
  pose proof (strongly_monotone_expands Hm H (inverse y) (inverse z)) as P. rewrite !E in P.
  apply Rmult_le_reg_l with (1 := Hm). field_simplify; lra.
Qed.

(** T6: phi = g z, phi' = g (z - alpha u) with u the gradient of f at phi: the decrease of one dual
    step. *)
Theorem dual_step_descends (f : V -> R) (L M alpha : R) (z u : V) :
  let next := g (z -: alpha *: u) in
  0 < alpha -> 0 <= L -> strongly_monotone ->
  (forall x y, sq (g x -: g y) <= M * M * sq (x -: y)) ->
  f next <= f (g z) + <<u, next -: g z>> + L / 2 * sq (next -: g z) ->
  f next <= f (g z) - alpha * (m - alpha * L * (M * M) / 2) * sq u.
Proof.
  intros next Ha HL Hm HM Hf. specialize (Hm (z -: alpha *: u) z). specialize (HM (z -: alpha *: u)
    z).
  fold next in Hm, HM.
  replace ((z -: alpha *: u) -: z) with ((- alpha) *: u) in Hm, HM by vectors.
  generalize dependent (next -: g z). intros move Hm HM Hf. revert Hm HM. expand.
  rewrite (dot_sym V move u). intros Hm HM.
  assert (P : <<u, move>> <= - alpha * m * sq u) by (apply Rmult_le_reg_l with (1 := Ha); lra).
  assert (Q : L / 2 * sq move <= L / 2 * (M * M * (alpha * (alpha * sq u)))).
  { apply Rmult_le_compat_l; lra. }
  lra.
Qed.
End Monotone.
