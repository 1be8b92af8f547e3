"""The programs of docs/audiences.md in Go and Java: APIs that verify their tokens by stock libraries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from apps.application import Seen, Tried
from apps.installing import HERE, go_programs, go_version, maven_package
from tests.docs.recipes import RECIPES
from tests.flows.walking import Company, check_program


class _Apis(Tried):
    recipes: ClassVar[tuple[str, str]]

    def command(self, recipe: str, folder: Path) -> list[str]:
        """What runs one of them."""
        raise NotImplementedError

    def see(self) -> Seen:
        version = self.version()
        with Company() as company:
            for recipe in self.recipes:
                assert check_program(company, recipe, self.command) == {}
        return Seen(version, name=None, email=None, groups=True, refresh=None, sign_out=None, rotation=None)


class GoOidc(_Apis):
    """https://github.com/coreos/go-oidc"""

    name, recipes = "go-oidc", ("api.go", "legacy.go")

    def version(self) -> str:
        self._programs()
        return go_version("apis", "github.com/coreos/go-oidc/v3")

    def command(self, recipe: str, _folder: Path) -> list[str]:
        return [str(self._programs() / Path(recipe).stem)]

    def _programs(self) -> Path:
        return go_programs("apis", {Path(recipe).stem: RECIPES[recipe].code for recipe in self.recipes})


class Nimbus(_Apis):
    """https://connect2id.com/products/nimbus-jose-jwt"""

    name, recipes = "nimbus-jose-jwt", ("Api.java", "Legacy.java")

    def version(self) -> str:
        self._jar()
        pom = (HERE / "java/apis/pom.xml").read_text()
        found = re.search(r"<artifactId>nimbus-jose-jwt</artifactId>\s*<version>([0-9.]+)<", pom)
        assert found
        return found[1]

    def command(self, recipe: str, _folder: Path) -> list[str]:
        jar = self._jar()
        return ["java", "-cp", f"{jar}:{jar.parent}/lib/*", Path(recipe).stem]

    def _jar(self) -> Path:
        return maven_package("apis", {recipe: RECIPES[recipe].code for recipe in self.recipes})


APPS: list[Tried] = [GoOidc(), Nimbus()]
