"""One seed's fixed things, what is trained and measured on them, and where that is kept."""

from linearize.study.frozen import computed_once as computed_once
from linearize.study.store import Store as Store
from linearize.study.store import stack as stack
from linearize.study.study import Method as Method
from linearize.study.study import Study as Study
