from __future__ import annotations

import hashlib
import re
from importlib import resources

from dskd_export.report.render import SCRIPTS


def test_vendored_scripts_are_the_ones_that_the_readme_names() -> None:
    vendor = resources.files("dskd_export.report").joinpath("vendor")
    listed = dict(
        re.findall(r"\| `(\S+\.js)` \|.*\| `([0-9a-f]{64})` \|", vendor.joinpath("README.md").read_text())
    )
    assert set(listed) == set(SCRIPTS)
    total = 0
    for name, recorded in listed.items():
        content = vendor.joinpath(name).read_bytes()
        total += len(content)
        assert hashlib.sha256(content).hexdigest() == recorded
        assert vendor.joinpath(f"LICENSE-{name.removesuffix('.min.js')}").is_file()
    assert vendor.joinpath("LICENSE-bundled").is_file()
    assert total < 1_200_000
