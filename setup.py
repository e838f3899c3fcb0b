"""What setup.cfg cannot say: the README for PyPI, where links into the repository have to be complete."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def complete(text: str, url: str) -> str:
    """Returns Markdown whose images and links into the repository are addresses of its main branch."""
    images = re.sub(r"(!\[[^\]]*\]\()(?!https?:|#)", rf"\1{url}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^\[\]]*\]\()(?!https?:|#)", rf"\1{url}/blob/main/", images)


config = ConfigParser()
config.read(ROOT / "setup.cfg", encoding="utf-8")
url = config["metadata"]["url"]
setup(
    long_description=complete((ROOT / "README.md").read_text(encoding="utf-8"), url),
    project_urls={"Issues": f"{url}/issues", "Changelog": f"{url}/blob/main/CHANGELOG.md"},
)
