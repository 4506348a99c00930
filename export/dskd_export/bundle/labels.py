"""`labels.txt`: class names, one a line, in the order of the logits.

For tools that read line by line; the exact names are in `spec.json`. A name with a line break in it
would shift every class behind it, so what some reader takes for a line end, and every other control
character, is written as Python would write it in a string, and a backslash as two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# By number and not by what Python calls printable: that grows with every version of Unicode.
_ESCAPED = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def labels_text(classes: Sequence[str]) -> str:
    r"""The file's text: `line one\nline two` for a class whose name holds a line break.

    Args:
        classes: names in the order of the logits; any text.
    """
    return "".join(_ESCAPED.sub(lambda sign: repr(sign[0])[1:-1], name) + "\n" for name in classes)
