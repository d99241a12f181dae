"""What is refused before a model is fetched."""

from pathlib import Path

import pytest

from infra.errors import ConfigError
from tasks.registry.export import check_targets


def test_a_target_that_cannot_be_written_is_refused_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format: add --onnx"):
        check_targets({})
    with pytest.raises(ConfigError, match=r"--pt2 .* is a folder"):
        check_targets({"pt2": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"--onnx .*: there is no folder"):
        check_targets({"onnx": str(tmp_path / "none" / "x.onnx")})
    with pytest.raises(ConfigError, match="--int8 needs --onnx"):
        check_targets({"pt2": str(tmp_path / "x.pt2")}, int8=True)
