"""How task vectors come about: one file a method, one row each in :data:`METHODS`."""

from linearize.methods.exact import EXACT as EXACT
from linearize.methods.gradient_ascent import GRADIENT_ASCENT as GRADIENT_ASCENT
from linearize.methods.joint import JOINT as JOINT
from linearize.methods.regimes import LINEAR as LINEAR
from linearize.methods.regimes import NONLINEAR as NONLINEAR
from linearize.methods.regimes import POSTHOC as POSTHOC
from linearize.methods.tak import TAK as TAK
from linearize.study import Method as Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (NONLINEAR, POSTHOC, LINEAR, EXACT, TAK, GRADIENT_ASCENT, JOINT)
}
"""By name, in the order of tables; a row of one's own is added by assignment."""
