"""Write the SPDX 2.3 package list of the image: release.yaml attests it, and offline builds have no other."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import Parser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import quote

_IMAGE = "SPDXRef-Image"
_UNKNOWN = "NOASSERTION"

Document = dict[str, object]


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package in the image. ``kind`` and ``place`` are those of its package URL, as deb and debian/."""

    kind: str
    name: str
    version: str
    place: str = ""
    qualifiers: str = ""
    license_id: str = _UNKNOWN
    origin: str = ""

    @property
    def url(self) -> str:
        """The package URL (purl)."""
        version = quote(self.version, safe="")
        return f"pkg:{self.kind}/{self.place}{quote(self.name)}@{version}{self.qualifiers}"

    @property
    def identity(self) -> str:
        """A name that SPDX allows, and that no two packages share."""
        return f"SPDXRef-{self.kind}-{re.sub('[^A-Za-z0-9.]', '-', f'{self.name}-{self.version}')}"


def debian_packages(control: str) -> Iterator[Package]:
    """Yield the packages of a text of control paragraphs, as ``/var/lib/dpkg/status``."""
    for paragraph in re.split(r"\n\s*\n", control.strip()):
        fields = Parser().parsestr(paragraph, headersonly=True)
        if fields.get("Status", "install ok installed").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            yield Package(
                "deb",
                name,
                version,
                place="debian/",
                qualifiers=f"?arch={fields['Architecture']}",
                origin=f"source package: {fields.get('Source', name)}",
            )


def python_packages(folder: Path) -> Iterator[Package]:
    """Yield the packages installed in a ``site-packages``."""
    for found in distributions(path=[str(folder)]):
        name = re.sub(r"[-_.]+", "-", found.name).lower()
        yield Package("pypi", name, found.version, license_id=_license(found))


def _license(package: Distribution) -> str:
    """Return the SPDX expression that the package declares; older metadata has free text instead."""
    expressions = package.metadata.get_all("License-Expression") or [_UNKNOWN]
    return str(expressions[0])


def document(packages: Iterable[Package], version: str, revision: str, created: datetime) -> Document:
    """Return the SPDX document of an image with these packages: the same input gives the same document."""
    listed = sorted(set(packages))
    content = hashlib.sha256("\n".join([version, revision, *(package.url for package in listed)]).encode())
    image = _described(_IMAGE, "tokenbucket image", purpose="CONTAINER")
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "tokenbucket",
        "documentNamespace": f"https://tokenbucket.dev/sbom/{content.hexdigest()}",
        "creationInfo": {"created": f"{created:%Y-%m-%dT%H:%M:%SZ}", "creators": ["Tool: hack/sbom.py"]},
        "packages": [
            {**image, "versionInfo": version, "sourceInfo": f"revision: {revision}"},
            *map(_entry, listed),
        ],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_relationship(_IMAGE, "CONTAINS", package.identity) for package in listed),
        ],
    }


def _entry(package: Package) -> Document:
    purl = {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": package.url,
    }
    return {
        **_described(package.identity, package.name, package.license_id),
        "versionInfo": package.version,
        **({"sourceInfo": package.origin} if package.origin else {}),
        "externalRefs": [purl],
    }


def _described(identity: str, name: str, license_id: str = _UNKNOWN, purpose: str = "LIBRARY") -> Document:
    return {
        "SPDXID": identity,
        "name": name,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": license_id,
        "copyrightText": _UNKNOWN,
        "primaryPackagePurpose": purpose,
    }


def _relationship(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _created() -> datetime:
    """Return the time that ``$SOURCE_DATE_EPOCH`` names, otherwise now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True, help="of the image")
    parser.add_argument("--revision", required=True, help="of the source that the image is made of")
    parser.add_argument("--debian", type=Path, action="append", default=[], help="control paragraphs")
    parser.add_argument("--python", type=Path, action="append", default=[], help="a site-packages folder")
    options = parser.parse_args()
    packages = [
        *(package for file in options.debian for package in debian_packages(file.read_text())),
        *(package for folder in options.python for package in python_packages(folder)),
    ]
    json.dump(document(packages, options.version, options.revision, _created()), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
