(** C12: the quadratic Q(y) = f(x) + <f'(x), y - x> + |y - x|^2/(2 alpha) majorises every L-smooth
    f iff alpha <= 1/L. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Proofs Require Import space.
Open Scope R_scope.

Section Majoriser.
Variable V : space.

(** f has the gradient df along every line, and df is Lipschitz with constant L. *)
Definition smooth (L : R) (f : V -> R) (df : V -> V) : Prop :=
  (forall x d t, is_derive (fun t => f (x +: t *: d)) t <<df (x +: t *: d), d>>) /\
  (forall x y, sq (df x -: df y) <= L * L * sq (x -: y)).

Definition majorises (alpha : R) (f : V -> R) (df : V -> V) : Prop :=
  forall x y, f y <= f x + <<df x, y -: x>> + 1 / (2 * alpha) * sq (y -: x).

Lemma descent_lemma (L : R) (f : V -> R) (df : V -> V) : 0 <= L -> smooth L f df ->
  forall x d, f (x +: 1 *: d) <= f (x +: 0 *: d) + <<df x, d>> + L / 2 * sq d.
Proof.
  intros HL [Hd Hl] x d.
  set (gap := fun t => f (x +: t *: d) - t * <<df x, d>> - L * (t * t) / 2 * sq d).
  destruct (MVT_gen gap 0 1 (fun t => <<df (x +: t *: d), d>> - <<df x, d>> - L * t * sq d))
    as (c & Hc & E).
  - intros t _. unfold gap.
    apply (is_derive_minus (fun t => f (x +: t *: d) - t * <<df x, d>>)).
    + apply (is_derive_minus (fun t => f (x +: t *: d))); [apply Hd |]. auto_derive; trivial. ring.
    + auto_derive; trivial. field.
  - intros t _. apply continuity_pt_filterlim. unfold gap.
    apply (ex_derive_continuous (fun t => f (x +: t *: d) - t * <<df x, d>> - L * (t * t) / 2 * sq
      d)).
    apply (ex_derive_minus (fun t => f (x +: t *: d) - t * <<df x, d>>)); [| now auto_derive].
    apply (ex_derive_minus (fun t => f (x +: t *: d))); [| now auto_derive].
    eexists. apply Hd.
  - rewrite Rmin_left, Rmax_right in Hc by lra.
    assert (N : <<df (x +: c *: d), d>> - <<df x, d>> <= L * c * sq d).
    { pose proof (cauchy_schwarz V (df (x +: c *: d) -: df x) d) as CS.
      specialize (Hl (x +: c *: d) x). replace ((x +: c *: d) -: x) with (c *: d) in Hl by vectors.
      replace (<<df (x +: c *: d), d>> - <<df x, d>>) with <<df (x +: c *: d) -: df x, d>>
        by (expand; ring).
      revert CS Hl. generalize (df (x +: c *: d) -: df x). intros change CS Hl.
      rewrite dot_scale, dot_scale_r in Hl. pose proof (dot_pos V d) as P.
      assert (0 <= L * c * sq d) by (repeat apply Rmult_le_pos; lra).
      destruct (Rle_dec <<change, d>> (L * c * sq d)) as [| F]; [trivial | exfalso].
      assert (<<change, d>> * <<change, d>> <= (L * c * sq d) * (L * c * sq d)).
      { apply Rle_trans with (1 := CS).
        replace (L * c * sq d * (L * c * sq d)) with (L * L * (c * (c * sq d)) * sq d) by ring.
        now apply Rmult_le_compat_r. }
      nra. }
    unfold gap in E. lra.
Qed.

(** Given alpha, the condition is exact: it must hold for the class, and one quadratic already
    needs it. *)
Theorem majoriser_iff (L alpha : R) (e : V) : 0 < L -> 0 < alpha -> 0 < sq e ->
  (forall f df, smooth L f df -> majorises alpha f df) <-> alpha <= 1 / L.
Proof.
  intros HL Ha He. split.
  - intro H. specialize (H (fun v => L / 2 * sq v) (fun v => L *: v)).
    assert (S : smooth L (fun v => L / 2 * sq v) (fun v => L *: v)).
    { split.
      - intros x d t.
        apply (is_derive_ext (fun t => L / 2 * (sq x + 2 * t * <<x, d>> + t * t * sq d))).
        { intro s. change (L / 2 * (sq x + 2 * s * <<x, d>> + s * s * sq d)
                            = L / 2 * sq (x +: s *: d)).
          expand. rewrite (dot_sym V d x). ring. }
        auto_derive; trivial. expand. field.
      - intros x y. right. expand. ring. }
    specialize (H S (0 *: e) e). revert H. expand. intro H.
    assert (P : L * alpha <= 1).
    { apply Rmult_le_reg_r with (1 := He).
      apply Rmult_le_reg_l with (r := 1 / (2 * alpha)).
      { apply Rdiv_lt_0_compat; lra. }
      replace (1 / (2 * alpha) * (L * alpha * sq e)) with (L / 2 * sq e) by (field; lra). lra. }
    apply Rmult_le_reg_l with (1 := HL). replace (L * (1 / L)) with 1 by (field; lra). lra.
  - intros Hle f df S x y.
    pose proof (descent_lemma L f df (Rlt_le _ _ HL) S x (y -: x)) as D.
    replace (x +: 1 *: (y -: x)) with y in D by vectors.
    replace (x +: 0 *: (y -: x)) with x in D by vectors.
    assert (P : L <= 1 / alpha).
    { apply Rmult_le_reg_l with (1 := Ha). replace (alpha * (1 / alpha)) with 1 by (field; lra).
      apply Rmult_le_compat_r with (r := L) in Hle; [| lra].
      replace (1 / L * L) with 1 in Hle by (field; lra). lra. }
    replace (1 / (2 * alpha)) with (1 / alpha / 2) by (field; lra).
    pose proof (dot_pos V (y -: x)). nra.
Qed.
End Majoriser.
