"""How task vectors come about: one file a method, one row each in :data:`METHODS`."""

from linearize.methods.attention_only import ATTENTION_ONLY as ATTENTION_ONLY
from linearize.methods.attention_only import ATTENTION_ONLY_POSTHOC as ATTENTION_ONLY_POSTHOC
from linearize.methods.delta import DELTA as DELTA
from linearize.methods.delta import DELTA_ON_CONTROL as DELTA_ON_CONTROL
from linearize.methods.delta import DELTA_POSTHOC as DELTA_POSTHOC
from linearize.methods.diag_ggn import DIAG_GGN as DIAG_GGN
from linearize.methods.diag_ggn import VARIANTS as DIAGONALS
from linearize.methods.exact import EXACT as EXACT
from linearize.methods.fine_tuning import moving as moving
from linearize.methods.fine_tuning import weighted as weighted
from linearize.methods.gradient_ascent import GRADIENT_ASCENT as GRADIENT_ASCENT
from linearize.methods.joint import JOINT as JOINT
from linearize.methods.lora import L_LORA as L_LORA
from linearize.methods.lora import LORA as LORA
from linearize.methods.lora import LORA_POSTHOC as LORA_POSTHOC
from linearize.methods.options import named as named
from linearize.methods.ortho_reg import ATTENTION_ORTHO_REG as ATTENTION_ORTHO_REG
from linearize.methods.ortho_reg import (
    ATTENTION_ORTHO_REG_POSTHOC as ATTENTION_ORTHO_REG_POSTHOC,
)
from linearize.methods.ortho_reg import ORTHO_REG as ORTHO_REG
from linearize.methods.ortho_reg import ORTHO_REG_POSTHOC as ORTHO_REG_POSTHOC
from linearize.methods.regimes import LINEAR as LINEAR
from linearize.methods.regimes import NONLINEAR as NONLINEAR
from linearize.methods.regimes import POSTHOC as POSTHOC
from linearize.methods.tak import TAK as TAK
from linearize.methods.tak import VARIANTS as TAKS
from linearize.methods.talos import TALOS as TALOS
from linearize.methods.talos import TALOS_POSTHOC as TALOS_POSTHOC
from linearize.methods.tau_jp import TAU_JP as TAU_JP
from linearize.methods.tau_jp import VARIANTS as TAU_JPS
from linearize.study import Method as Method

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(NONLINEAR, POSTHOC, LINEAR, EXACT),
        *(TAU_JP, *TAU_JPS, DIAG_GGN, *DIAGONALS, TAK, *TAKS),
        *(DELTA, DELTA_ON_CONTROL, DELTA_POSTHOC),
        *(ATTENTION_ONLY, ATTENTION_ONLY_POSTHOC),
        *(ORTHO_REG, ORTHO_REG_POSTHOC),
        *(ATTENTION_ORTHO_REG, ATTENTION_ORTHO_REG_POSTHOC),
        *(TALOS, TALOS_POSTHOC, LORA, LORA_POSTHOC, L_LORA),
        *(GRADIENT_ASCENT, JOINT),
    )
}
"""By name, in the order of tables; a row of one's own is added by assignment."""
