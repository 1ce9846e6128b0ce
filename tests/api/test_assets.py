import hashlib
from pathlib import Path

import gateway

ASSETS = Path(gateway.__file__).parent / "api" / "assets"

# Of the files as published in the npm package swagger-ui-dist 5.35.0.
PUBLISHED = {
    "favicon.png": "3ed612f41e050ca5e7000cad6f1cbe7e7da39f65fca99c02e99e6591056e5837",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


def test_the_documentation_pages_files_are_as_published() -> None:
    """The vendored Swagger UI is the published one, byte for byte."""
    found = {name: hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() for name in PUBLISHED}
    assert found == PUBLISHED


def test_the_vendored_licence_comes_along() -> None:
    """Whoever gets the files gets their licence too."""
    assert "Apache License" in (ASSETS / "LICENSE").read_text()
    assert "SmartBear" in (ASSETS / "NOTICE").read_text()
