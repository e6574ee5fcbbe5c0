(** T2: a BlockIAF with a scale that is not constant is neither monotone nor Lipschitz, in any
    dimension.

    A point is (v, t, w): v the blocks before block i, t one coordinate of block i, w all other
      coordinates. The map's
    first part reads v only, the coordinate is s(v) t + mu(v), and the rest may do what it likes. *)

From Coq Require Import Reals Lra.
From Proofs Require Import space.
Open Scope R_scope.

Section BlockIAF.
Variables V W : space.
Variables (before : V -> V) (s mu : V -> R) (rest : V -> R -> W -> W).

Definition point : space := pair V (pair line W).
Definition block_iaf (x : point) : point :=
  let '(v, (t, w)) := x in (before v, (s v * t + mu v, rest v t w)).

Theorem block_iaf_takes_every_product (a b : V) (w : W) (p : R) :
  s a <> s b -> exists x y : point, <<block_iaf x -: block_iaf y, x -: y>> = p.
Proof.
  intro H.
  set (c := <<before a -: before b, a -: b>>).
  set (t := (p - c - (s a + mu a - mu b)) / (s a - s b)).
  exists (a, (t + 1, w)), (b, (t, w)).
  assert (E : (s a - s b) * t = p - c - (s a + mu a - mu b)) by (unfold t; field; lra).
  change (c + ((s a * (t + 1) + mu a + -1 * (s b * t + mu b)) * (t + 1 + -1 * t)
               + <<rest a (t + 1) w -: rest b t w, w -: w>>) = p).
  assert (Z : <<rest a (t + 1) w -: rest b t w, w -: w>> = 0) by (expand; ring).
  rewrite Z. lra.
Qed.

Theorem block_iaf_not_monotone (a b : V) (w : W) :
  s a <> s b -> exists x y : point, <<block_iaf x -: block_iaf y, x -: y>> < 0.
Proof.
  intro H. destruct (block_iaf_takes_every_product a b w (-1) H) as (x & y & E).
  exists x, y. lra.
Qed.

Theorem block_iaf_not_lipschitz (a b : V) (w : W) (bound : R) :
  s a <> s b -> exists x y : point, sq (x -: y) = sq (a -: b) /\ bound <= sq (block_iaf x -:
    block_iaf y).
Proof.
  intro H. set (t := (Rabs bound + 1 - (mu a - mu b)) / (s a - s b)).
  exists (a, (t, w)), (b, (t, w)).
  assert (E : s a * t + mu a + -1 * (s b * t + mu b) = Rabs bound + 1).
  { unfold t. field. lra. }
  split.
  - change (sq (a -: b) + ((t + -1 * t) * (t + -1 * t) + sq (w -: w)) = sq (a -: b)). expand. ring.
  - change (bound <= sq (before a -: before b) + ((s a * t + mu a + -1 * (s b * t + mu b))
              * (s a * t + mu a + -1 * (s b * t + mu b)) + sq (rest a t w -: rest b t w))).
    rewrite E. pose proof (dot_pos V (before a -: before b)). pose proof (dot_pos W (rest a t w -:
      rest b t w)).
    pose proof (Rle_abs bound). pose proof (Rabs_pos bound). nra.
Qed.
End BlockIAF.
