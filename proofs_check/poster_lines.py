"""The poster line by line: which claim judges each line, or why none does.

A line is quoted as it is printed, shortened where it is long. ``python -m proofs_check`` judges the
claims; the docs make one page of this list.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of the poster. ``claims``: who judges it; ``note``: what is to be said besides, or
    the reason why no claim judges it.
    """

    panel: str
    printed: str
    claims: tuple[str, ...] = ()
    note: str = ""


def _panel(name: str, *lines: tuple[str, str, str]) -> tuple[Line, ...]:
    return tuple(Line(name, printed, tuple(ids.split()), note) for printed, ids, note in lines)


LINES = (
    *_panel(
        "Motivating context",
        ("Challenge in deep learning: large-scale model vs limited training data", "C02", ""),
        ("ResNet-50 > 23M parameters", "C31", "Counted layer by layer: 23,508,032 without head."),
        (
            "HE-vs-MPM dataset, only 116 breast cancer images",
            "",
            "A fact about a data set that is not here. In the public collection the images come "
            "from 12 patients, so 116 images are not 116 independent samples: a split must be by "
            "patient.",
        ),
        ("min L(phi; D^trn) + R(phi)", "C01", ""),
        ("Parameter phi in R^d, training data D^trn", "", "Notation."),
        ("L = -log p(y|phi; X), R = -log p(phi)", "C01", ""),
        ("Under-determinacy d >> N: rely on informative R", "C02", ""),
        ("Ex. Gaussian prior to cope with underdetermined regression", "C02", ""),
        (
            "Meta-learning: learn a task-invariant prior from related tasks",
            "",
            "A definition of the aim.",
        ),
    ),
    *_panel(
        "Problem statement",
        ("Given related tasks, a new task with limited data, predict its labels", "", "Setting."),
        ("Goal: transfer to a new task via min L_{T+1} + R", "C01", ""),
        ("min_theta sum_t L_t^val(phi_t^*(theta)), explicit or implicit prior", "C03", ""),
        (
            "Optimize via alternating solver",
            "C09 C03",
            "The meta-level step is judged as written there. A solver that alternates between "
            "exact minimisations is another algorithm, and none is stated.",
        ),
    ),
    *_panel(
        "Bilevel optimization for meta-learning",
        ("Task-invariant initialization phi_t^0 = phi^0", "", "Definition of MAML."),
        ("phi^k = phi^{k-1} - alpha grad L(phi^{k-1}), phi_hat = phi^K", "C11", ""),
        ("After K iterations the solver will approximate the global optimum", "C04", ""),
        ("Lemma: MAML satisfies phi_hat ~ argmin L + 1/2 |phi - theta|^2", "C05", ""),
        ("Lambda_t is a function of alpha, K and the Hessian", "C05", "The norm is printed bare."),
        ("Implicit Gaussian prior N(theta, Lambda_t^{-1})", "C06", ""),
        ("Accuracy versus complexity tradeoff with K", "C07 C10", ""),
        ("Converges to a stationary point, |phi_hat - phi_bar| = O(L/K)", "C07", ""),
        ("Gradient error is linear in |phi_hat - phi_bar|", "C08a C08b", ""),
        ("Meta-level iteration with a mini-batch of tasks", "C09", ""),
        ("Overall complexity grows linearly with K", "C10", ""),
    ),
    *_panel(
        "Prior art on accelerated task-specific optimization",
        ("Quadratic upper bound 0 < alpha <= 1/L", "C12", ""),
        ("GD is the argmin of linearisation plus prox", "C11", "A transpose is missing."),
        ("Bound not adaptive to k, t and phi_t dimensions", "C13", ""),
        ("Preconditioned GD with matrix P can accelerate GD", "C15", ""),
        ("PGD is the argmin with the P^{-1}-weighted prox", "C14", ""),
        ("Meta-learning with task-invariant preconditioner P(theta_P)", "C16", ""),
        ("P choices: diag., block-diag., low-rank", "C16", "A taxonomy."),
    ),
    *_panel(
        "Learning loss geometry priors via mirror descent",
        ("Non-quadratic upper bounds by the Bregman divergence", "C18", ""),
        ("D_h(phi, phi^k) := h(phi) - lin(h, phi^k)(phi)", "C17", ""),
        ("Distance generating function h is strongly convex", "C20 C21", "The standing condition."),
        ("Ex. h = 1/2 |.|^2_{P^{-1}}", "C17", ""),
        ("MD iteration: argmin and closed form", "C19", ""),
        ("Fenchel conjugate h^*(z) := sup phi^T z - h(phi)", "C20", "Definition."),
        ("P1. h^* is convex and Lipschitz smooth", "C20", ""),
        ("P2. if h in C^1, then grad h^* = (grad h)^{-1}", "C21", ""),
        ("MD with proper h accelerates convergence rate/constant over GD", "C22", ""),
        ("MD is optimization over the dual variable z", "C23", ""),
        ("In addition to z^0, learn grad h^*", "C23", ""),
        (
            "Key idea: a data-driven inverse mirror map R^d -> R^d",
            "C28",
            "Its arrow is |->.",
        ),
        ("With h^* as in P1, grad h^* is increasing and Lipschitz", "C24a C24b", ""),
    ),
    *_panel(
        "Learning inverse mirror map with a NN model",
        ("Block-wise autoregression g as a candidate", "C25", ""),
        ("Partition B_1, ..., B_B", "C25", ""),
        (
            "[g(z_t)]_{B_i} = [z_t]_{B_i} * sigma(alpha_i) + mu_i, [alpha_i, mu_i] := "
            "d_i({e_j([z_i]_{B_j})})",
            "C25",
            "Slips: z_i in the encoders must be z_t; the printed range 1..B-1 fits the encoders, "
            "and the decoders are d_2..d_B with d_1 constant.",
        ),
        (
            "sigma positive and bounded (e.g., sigmoid)",
            "C26 C27 T2",
            "The official code's scale is exp, unbounded.",
        ),
        ("Lemma: for any partition g is increasing", "C26 T1 T2 T5", ""),
        ("Lemma: for any partition g is Lipschitz continuous", "C27 T2 T4", ""),
        ("grad h^* = g is a desirable choice", "C28 C29 T3 T6 T7", ""),
        ("Research outlook: model h^*, and analyze bilevel convergence", "C30 RA1 RA2 RE", ""),
    ),
    *_panel(
        "Numerical tests",
        ("Comparison on miniImageNet, 1 or 5 images for each of 5 classes", "C31", "Setting."),
        ("Metric: mean accuracy and 95% interval on 600 new tasks", "C31", "Part (tasks)."),
        (
            "Standard 4-layer 64-channel CNN",
            "",
            "A setting of the rows. Not all rows were published with it; the laboratory's "
            "configuration says which differ.",
        ),
        ("Table of accuracies", "C31", ""),
        (
            "Superior performance due to improved loss geometry model",
            "C31",
            "Parts (superior) and (due); what the records of this project say about the cause is "
            "part (cause).",
        ),
        ("L(phi^k) vs k; |grad L(phi^k)| vs k", "C32", "The figures; the curves here are small."),
        ("Versatile loss geometry model accelerates task-level convergence", "C32", ""),
        (
            "Better initialization and faster reduction",
            "C32",
            "In the curves here MetaMiDA's own start is the worse one, and its loss falls faster.",
        ),
        ("Proximity to a stationary point", "C32", "Part (gap): a small gradient is no proximity."),
    ),
)
