(** Real inner product spaces of any dimension: what every lemma here is stated over.

    [ext] is definiteness in the form that proofs use; the laws of a vector space follow from it.
      [euclid n] is R^(n+1),
    so the laws are consistent and the lemmas speak about R^d. *)

From Coq Require Import Reals Lra.
Open Scope R_scope.

Record space := Space {
  vec :> Type;
  add : vec -> vec -> vec;
  scale : R -> vec -> vec;
  dot : vec -> vec -> R;
  dot_add : forall u v w, dot (add u v) w = dot u w + dot v w;
  dot_scale : forall a v w, dot (scale a v) w = a * dot v w;
  dot_sym : forall v w, dot v w = dot w v;
  dot_pos : forall v, 0 <= dot v v;
  ext : forall v w, (forall u, dot v u = dot w u) -> v = w }.

Arguments add {_}. Arguments scale {_}. Arguments dot {_}. Arguments ext {_}.

Notation "v +: w" := (add v w) (at level 50, left associativity).
Notation "v -: w" := (add v (scale (-1) w)) (at level 50, left associativity).
Notation "a *: v" := (scale a v) (at level 40).
Notation "<< v , w >>" := (dot v w) (at level 0, v at level 99, w at level 99).
Notation sq v := (dot v v).

Section Laws.
Variable V : space.
Implicit Types u v w : V.

Lemma dot_add_r u v w : <<u, v +: w>> = <<u, v>> + <<u, w>>.
Proof. now rewrite dot_sym, dot_add, (dot_sym V v), (dot_sym V w). Qed.

Lemma dot_scale_r a v w : <<v, a *: w>> = a * <<v, w>>.
Proof. now rewrite dot_sym, dot_scale, dot_sym. Qed.

End Laws.

(** [expand]: inner products of sums become sums of inner products of the atoms. *)
Ltac expand := repeat rewrite ?dot_add, ?dot_scale, ?dot_add_r, ?dot_scale_r.
(** [vectors]: an equation between vectors, tested against an arbitrary one. *)
Ltac vectors := apply ext; intro; expand; try (ring || lra).

Lemma cauchy_schwarz (V : space) (v w : V) : <<v, w>> * <<v, w>> <= sq v * sq w.
Proof.
  pose proof (dot_pos V (<<w, w>> *: v -: <<v, w>> *: w)) as H.
  pose proof (dot_pos V w) as [Hw | Hw].
  - revert H. expand. rewrite (dot_sym V w v). intro H.
    apply Rmult_le_reg_l with (1 := Hw). nra.
  - assert (P : forall t, 0 <= sq v + 2 * t * <<v, w>>).
    { intro t. pose proof (dot_pos V (v +: t *: w)) as Q. revert Q. expand.
      rewrite (dot_sym V w v), <- Hw. lra. }
    destruct (Req_dec <<v, w>> 0) as [E | E]; [rewrite E, <- Hw; lra |].
    pose proof (P (- (sq v + 1) / (2 * <<v, w>>))) as Q.
    replace (2 * (- (sq v + 1) / (2 * <<v, w>>)) * <<v, w>>) with (- (sq v + 1)) in Q by now field.
    lra.
Qed.

(** R, products, and so R^(n+1). *)
Definition line : space.
Proof.
  refine (Space R Rplus Rmult Rmult _ _ _ _ _); intros; try ring.
  - apply Rle_0_sqr.
  - specialize (H 1). lra.
Defined.

Definition pair (V W : space) : space.
Proof.
  refine (Space (V * W) (fun x y => (fst x +: fst y, snd x +: snd y)) (fun a x => (a *: fst x, a *:
    snd x))
            (fun x y => <<fst x, fst y>> + <<snd x, snd y>>) _ _ _ _ _); intros; cbn.
  - expand. ring.
  - expand. ring.
  - now rewrite (dot_sym V), (dot_sym W).
  - pose proof (dot_pos V (fst v)). pose proof (dot_pos W (snd v)). lra.
  - destruct v as [v v'], w as [w w']. f_equal; apply ext; intro u.
    + specialize (H (u, 0 *: v')). cbn in H. rewrite !dot_scale_r in H. lra.
    + specialize (H (0 *: v, u)). cbn in H. rewrite !dot_scale_r in H. lra.
Defined.

Fixpoint euclid (n : nat) : space := match n with O => line | S n => pair line (euclid n) end.
