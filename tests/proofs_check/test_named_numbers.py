"""Every number that the theory names as a constant, a rate or a threshold stands among the ledger's
quantities.

Typed by hand from the statements, one line each: claim, the number as it is written there, the
quantity that holds it. A decimal number agrees if it does to its last printed digit, a closed form
to twelve digits.
"""

from __future__ import annotations

import json
import math

import pytest

from proofs_check.report import LEDGER

NAMED = r"""
C04  | 0.0974            | f at the limit
C04  | -0.1024           | global minimum of f
C04  | 2                 | textbook nonconvex constant
C05  | 0.125             | GD, eta=1/2, alpha=1, K=3, theta=1
C05  | 2/3               | printed argmin in the same case
C05  | 10/5              | lambda at eta=0, alpha=1/10, K=5
C05  | 2                 | largest alpha*eta with S_K > 0, K even
C05  | 2*1*3/12          | K(K-1)(2K-1)/12 at K=2
C05  | 5*4*9/12          | K(K-1)(2K-1)/12 at K=5
C05  | 1/6               | leading coefficient of the error constant
C05  | 1/2               | constant of rho G^2/mu^3
C05  | 1.00              | |m_hat - psi|/bound, K=1
C06  | 1                 | sup of alpha*eta with a proper prior
C06  | 1                 | alpha*eta of the flat (improper) prior
C06  | 2                 | alpha*eta where lambda is infinite, K even
C07  | 2                 | largest alpha (L + mu) of the contraction
C07  | 1/(3+1)           | mu/L that attains it, K=3
C07  | 3**3/4**4         | K^K/(K+1)^(K+1), K=3
C07  | exp(-1)           | constant of L/(e mu K) D
C07  | (4/5)**5          | worst distance/D at mu/L=1/5, K=5
C07  | 1/(4*5+2)         | worst convex gap/(L D^2), K=5
C07  | 1/(2*5+1)         | Huber kink/D, K=5
C07  | 1.000             | sup distance/D, convex, K=5
C07  | (1-1/25)**5       | distance/D at mu=L/K^2, K=5
C07  | 3                 | largest p with O(1/K)
C07  | 1.00              | K x_K/L at p=3, K=20000
C07  | 3.75              | p=4 increment/alpha
C07  | 2/3               | x_1 at p=4
C07  | 1.00              | x_K sqrt(2 alpha K) at p=4, K=20000
C07  | 2*sqrt(2)         | PL distance constant
C07  | 4*sqrt(2)/e       | PL distance constant of L/(mu K)
C07  | 4/(3*5+2)         | worst min|grad f|^2/(L Delta_0), K=5
C07  | 1/5               | worst MD gap/(L D_h), K=5
C07  | (4/5)**5          | worst D_h ratio at mu/L=1/5, K=5
C07  | 0.2/(1.25**5-1)   | worst gap/(L D_h) at mu/L=1/5, K=5
C07  | 2/3               | largest KL exponent with O(1/K)
C08a | 1.000             | AID error/(C e), attaining family
C08b | 0.9**10           | gradient error at distance 0, K=10
C08b | 1.000             | E_K/bound, attaining family, K=10
C08b | .9*.8*10/(.5*.55) | error/distance at mu=.5,rho=.8,alpha=.9, K=10
C09  | (6-2)/(2*(6-1))   | variance factor at T=6, b=2
C09  | 6                 | beta of the mean over beta of the sum, T=6
C10  | 1                 | task gradients per step, unrolled
C10  | 0                 | saved numbers per step, first_order
C10  | 1                 | evaluations per CG step, AID
C10  | 2                 | checkpointed memory / sqrt K
C10  | 1                 | K/(kappa log(1/eps)), kappa -> oo
C10  | 1.000             | F''/bound, a=1.0, K=6
C11  | 1                 | surrogate curvature times alpha
C12  | 1                 | largest majorising rate times L
C12  | (1/1.01-1)/2      | gap at alpha=1.01/L, L=1, |x-y|=1
C12  | 1/2               | guaranteed decrease at alpha=1/L, times L/|u|^2
C14  | 4/3               | diagonal of the shear's effective P
C14  | 2/3               | off-diagonal of the shear's effective P
C15  | 100               | kappa_P at H=P=diag(1,10)
C18  | 1                 | largest alpha L/sigma
C20  | 1                 | sigma * L_{h*}
C20  | 1/3               | order of grad h* at 0, h=x^4/4
C21  | 0                 | lower end of grad softplus
C21  | 1                 | upper end of grad softplus
C21  | 1                 | edge of dom h* for Huber
C22  | 0.18              | GD on x^4/4, K=40
C22  | 2**(-40/3)        | MD with h=f on x^4/4, K=40
C22  | 2**(-1/3)         | MD contraction on x^4/4
C22  | -0.50             | order of GD on x^4/4
C22  | 2.2               | MD guarantee / GD worst case, K=5
C22  | 0.99              | contraction with h=50x^2
C24a | -0.9              | change of phi_2 per z_1
C24b | 2.598             | 3-cycle sum of the rotation
C24b | 1                 | Lipschitz constant of the rotation
C30  | 4                 | R eps^2/(L_F Delta), b = eps/sqrt 2
C30  | 2                 | order of R in 1/eps, deterministic
C30  | 4                 | order of R in 1/eps, task SGD
C30  | 2                 | batch eps^2/sigma^2 at beta = 1/L_F
C30  | 1.0000            | min|grad F|^2 / bound, R -> oo, bias b
C31  | 2.18              | z against MetaCurvature, 1-shot
C31  | 2.51              | z against WarpGrad, 5-shot
C31  | 3.08              | z against MetaCurvature, 5-shot
C31  | -0.0216           | v of 600 tasks, 1-shot
C31  | -0.0006           | v of 600 tasks, 5-shot
C31  | 0.0050            | v of 1000 tasks, 1-shot
C31  | 0.0049            | v of 1000 tasks, 5-shot
C31  | 0.07              | sd between tasks, 1-shot
C31  | -0.062            | least v for exchangeable queries, n=5
C31  | -0.0088           | least v for exchangeable queries, n=25
C31  | 23508032          | parameters of ResNet-50's backbone
C31  | 25557032          | parameters of ResNet-50 with its head
C32  | 0.00022           | |f'(0.3)| for f = x^8/8
C26  | -1                | <g(1,-1)-g(0,0),(1,-1)>
C26  | 3.674             | R at s_1=1/2
C29  | -1/4              | largest eigenvalue of JA
C29  | -3/4              | least eigenvalue of JA
T1   | 2.1               | inverse slope at |phi_2|=10
T1   | 188               | inverse slope at |phi_2|=1000
T1   | 18769             | inverse slope at |phi_2|=100000
T2   | 2                 | largest |m|/s of a monotone linear shift
T2   | 3*sqrt(3/2)       | R of the strip, s_1=1/2
T2   | -log(2)           | critical z_1 of the strip
T2   | 0                 | undirected pairs of 150: not monotone
T2   | 0                 | undirected pairs of 150: quotient > 10
T3   | 1                 | sup of rate/alpha, poster's sigmoid
T4   | 1/4               | largest slope of a sigmoid
T5   | cos(pi/9)         | cos(pi/(B+1)) at B=8
T5   | 2                 | threshold of ||D_2^-1/2 J_21 D_1^-1/2||
T6   | 1/2               | |r| / (alpha^2 L_J |u|^2)
T6   | 2                 | largest alpha * L M^2 / m
T6   | 1/2               | best decrease / (m^2/(L M^2))
T6   | 2                 | K min|grad f|^2 / (L M^2 Delta_0/m^2)
T6   | 1-1/8             | PL factor, mu=1/2, L=1, m=1, M=2
T6   | 2                 | largest alpha L M of a mirror map
T6   | 2*3/16            | best decrease of a mirror map, L=1, m=1, M=3
T6   | 33                | price at kappa=10, rounded
T7   | 4/3               | largest rate of GD on the example
RA1  | 1/4               | psi-bar of softplus
RA1  | (2-sqrt(2))/8     | least sup-error of ridge sums, max(0,z1,z2), unit disc
RA1  | 0.000             | LP for max(|z1|, |z2|)
RA1  | 0.09              | sup-error at the budget L - mu
RA1  | 0.0001            | sup-error with a free budget
RA2  | 1.000             | curvature/L_Phi, N=1
RA2  | 1.00              | curvature/L_Phi, N=3
RA2  | 0.25              | realised lambda_max at mu=0.2, L=1.5, depth 3
RB   | 1/4               | factor of c tau in eta
RB   | sqrt(3/8)         | sqrt((B-1)/(2B)) at B=4
RB   | 1.161             | sup ||J|| at B=2, a=1, eta=0.3
RB   | 1.3               | M at B=2, a=1, eta=0.3
RB   | 2                 | largest alpha L M^2 / m, on all of R^d
RC   | 64                | q_2 for the divergent example
RC   | 1/4               | m of the divergent example
RD   | 1/2               | decrease / (alpha |J^T u|^2)
RD   | 0.000000002       | |grad(f o g)| after 20000 pullback steps
RD   | 1.000             | |grad f| after 20000 pullback steps
"""
ROWS = [tuple(part.strip() for part in line.split("|", 2)) for line in NAMED.strip().splitlines()]
QUANTITIES = {
    entry["id"]: entry["quantities"] for entry in json.loads(LEDGER.read_text(encoding="utf-8"))
}


def agrees(printed: str, value: float) -> bool:
    """To half a unit of the last printed digit for a number in decimals, else to twelve digits."""
    number = eval(
        printed,
        {"__builtins__": {}},
        {name: getattr(math, name) for name in ("sqrt", "exp", "log", "cos", "pi", "e")},
    )
    digits = printed.lstrip("-").replace(".", "", 1)
    decimals = len(printed.partition(".")[2]) if digits.isdigit() and "." in printed else None
    return abs(value - number) <= (
        0.5001 * 10.0**-decimals if decimals is not None else 1e-12 * max(1.0, abs(number))
    )


@pytest.mark.parametrize(
    ("claim", "printed", "quantity"), ROWS, ids=lambda text: text.replace(" ", "_")
)
def test_a_named_number_is_a_quantity(claim, printed, quantity):
    found = QUANTITIES[claim][quantity]
    allowed_by_ledger = (
        abs(found["value"] - float(eval(printed, {"__builtins__": {}}, vars(math))))
        <= found["tolerance"]
    )
    assert agrees(printed, found["value"]) or allowed_by_ledger


def test_a_number_that_is_not_named_does_not_agree():
    assert agrees("3.674", 3.6742346) and not agrees("3.674", 3.6752)
    assert agrees("1/6", 1 / 6) and not agrees("1/6", 0.1667)
    assert not agrees("33", 33.1)


def test_every_claim_with_a_named_number_is_here_once():
    assert len(ROWS) == len(set(ROWS)) >= 120
    without = {
        "F1",
        "M1",
        "RE",
        "C01",
        "C02",
        "C03",
        "C13",
        "C16",
        "C17",
        "C19",
        "C23",
        "C25",
        "C27",
        "C28",
    }  # identities and yes-or-no statements
    assert {claim for claim, *_ in ROWS} == set(QUANTITIES) - without
