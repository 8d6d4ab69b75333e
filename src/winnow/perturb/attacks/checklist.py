"""CheckList: a random string after the instruction.

One of 50 fixed strings of 10 letters and digits. Source: Ribeiro et al. 2020 (arXiv 2005.04118); the strings are those
of PromptBench's code.
"""

from __future__ import annotations

from typing import ClassVar

from winnow.perturb.attacks.base import SentenceAttack

_PRINTED = (
    "d6ZQ3u0GBQ vTAjHynoIG OB4KVJzIft LkF0FZxMZ4 iia2yL9Uzm CuVpbbkC4c w52rwgo0Av Vq3aBzuZcD hXLpw3bbiw RcRneWo6Iv "
    "S6oUV5E54P xikCjkMydH MQnugHcaoy Q47Jmd4lMV 9vGXgnbWB8 IhuBIhoPGc 5yWbBXztUY AMsRIKZniY EAB4KP2NVY 9Q3S1F94fE "
    "b74X5IVXQY SFPCqpiClT bhrRSokrfa YHQiDfFhw4 BWmsLx8xOA PDCGfz6DL9 yh912BU8T0 ofOQXLxiW4 Cev0s49fbe rzu98kF2KF "
    "zexKUTWJYG 5XeflW1ZJc is77sOXAu8 XStsD2pUzu fwhUZUQzXW Pbl3tYuoRo MSAddJ4D2a mzjVogkRhM Kw6nrs57gH ItGDrrA1Sc "
    "KjPJJ2a7RB mOJ9nEwT4f ofw9fEkN5R njCuciQJpB 6a4Yn3RGVc SvAp8RlOFn g0vBZf3tQC zq0DcZ5dnI lf8wBa2yEm lWJoGGRdjv"
)
STRINGS = tuple(_PRINTED.split())


class CheckList(SentenceAttack):
    """One of the fixed strings."""

    version: ClassVar[int] = 2

    def options(self) -> tuple[str, ...]:
        return STRINGS
