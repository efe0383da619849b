"""The files that visdom's page needs besides its own, with their npm packages and checksums.

They are listed in asset_list.json. visdom downloads them when its server first starts; assets.py
gets them from sources that the user allows, and accepts only matching checksums.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Asset:
    """One file of the page.

    Attributes:
        file: its path in the page, below visdom's `static/`.
        package: the npm package and version that contains it, such as `"jquery@3.1.1"`.
        member: its path in the package.
        sha256: the checksum, in hexadecimal.
        family: the versions of visdom that need it, `"0.2"` or `"0.3"` (and newer); empty: both.
    """

    file: str
    package: str
    member: str
    sha256: str
    family: str = ""

    @property
    def name(self) -> str:
        """Its name in the cache and in a bundle, where equal contents are stored once."""
        return f"{self.package}/{self.member}"


@cache
def all_assets() -> tuple[Asset, ...]:
    """The files that the page needs in any version of visdom."""
    listed = files(__package__).joinpath("asset_list.json")  # also out of a zip
    return tuple(Asset(**row) for row in json.loads(listed.read_text("utf-8")))


def needed(visdom_version: str) -> tuple[Asset, ...]:
    """The files that the page of this version of visdom needs.

    >>> len(needed("0.2.4")), len(needed("0.3.0"))
    (152, 22)
    """
    family = "0.2" if visdom_version.startswith(("0.1.", "0.2.")) else "0.3"
    return tuple(asset for asset in all_assets() if asset.family in ("", family))
