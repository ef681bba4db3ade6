"""`slicer.packaging` and `slicer.i18n`: nothing is ever installed, every wish is written down."""

# ruff: noqa: N802, N803  (the application's own names)

from __future__ import annotations

import importlib
import importlib.metadata
import re
import types
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class Packaging:
    """Answers for requirements, and a record of what was asked for.

    Attributes:
        missing: names of packages that count as not installed.
        refuse: whether the user declines an installation.
        calls: (function, requirements as text) in order.
        has_pytorch_extension: whether the extension with PyTorchUtils is installed.
    """

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.refuse = False
        self.calls: list[tuple[str, list[str]]] = []
        self.has_pytorch_extension = True

    def clear(self) -> None:
        """Forget everything."""
        self.missing, self.refuse = set(), False
        self.calls.clear()

    def pip_check(self, req: Any, _seen: Any = None) -> bool:
        """Whether requirements are met."""
        return all(self._met(requirement) for requirement in _as_list(req))

    def _met(self, requirement: Requirement) -> bool:
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        if canonicalize_name(requirement.name) in {canonicalize_name(n) for n in self.missing}:
            return False
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        return requirement.specifier.contains(version, prereleases=True)

    def pip_ensure(
        self,
        requirements: Any,
        constraints: Any = None,
        skip_packages: list[str] | None = None,
        prompt_install: bool = True,
        prompt_restart: bool = True,
        requester: str | None = None,
        skip_in_testing: bool = True,
        show_progress: bool = True,
    ) -> list[str] | None:
        """Note what would be installed, and count it as installed; nothing while testing.

        Raises:
            RuntimeError: if the user declines.
        """
        import slicer

        if skip_in_testing and slicer.app.testingEnabled():
            return None
        wanted = [
            requirement for requirement in _as_list(requirements) if not self._met(requirement)
        ]
        self.calls.append(("pip_ensure", [str(requirement) for requirement in wanted]))
        if wanted and prompt_install and self.refuse:
            message = "User declined package installation"
            raise RuntimeError(message)
        self.missing -= {requirement.name for requirement in wanted}
        return None

    def pip_install(
        self,
        requirements: Any,
        constraints: Any = None,
        no_deps_requirements: Any = None,
        skip_packages: list[str] | None = None,
        blocking: bool = True,
        show_progress: bool = True,
        requester: str | None = None,
        parent: Any = None,
        logCallback: Any = None,
        completedCallback: Any = None,
    ) -> list[str] | None:
        """Note what would be installed, and count it as installed."""
        wanted = requirements.split() if isinstance(requirements, str) else list(requirements)
        self.calls.append(("pip_install", wanted))
        self.missing -= {re.split(r"[<>=!~\[; ]", text)[0] for text in wanted}
        return None

    def pip_uninstall(
        self,
        requirements: Any,
        blocking: bool = True,
        logCallback: Any = None,
        completedCallback: Any = None,
    ) -> None:
        """Note what would be removed."""
        self.calls.append(("pip_uninstall", _texts(requirements)))

    def load_requirements(self, path: str | Path) -> list[Requirement]:
        """Requirements of a requirements.txt."""
        lines = (line.split("#")[0].strip() for line in Path(path).read_text().splitlines())
        return [Requirement(line) for line in lines if line and not line.startswith("-")]

    def load_pyproject_dependencies(self, path: str | Path) -> list[Requirement]:
        """Dependencies of a pyproject.toml."""
        import tomllib

        project = tomllib.loads(Path(path).read_text())["project"]
        return [Requirement(text) for text in project.get("dependencies", [])]

    def isPipInstallInProgress(self) -> bool:
        """Never here."""
        return False


def _texts(requirements: Any) -> list[str]:
    return [str(requirement) for requirement in _as_list(requirements)]


def _as_list(requirements: Any) -> list[Requirement]:
    entries = requirements if isinstance(requirements, (list, tuple)) else [requirements]
    return [entry if isinstance(entry, Requirement) else Requirement(entry) for entry in entries]


def packaging_module(packaging: Packaging) -> types.ModuleType:
    """The module `slicer.packaging`."""
    module = types.ModuleType("slicer.packaging")
    for name in dir(packaging):
        if not name.startswith("_") and callable(getattr(packaging, name)) and name != "clear":
            setattr(module, name, getattr(packaging, name))
    module.canonicalize_name = canonicalize_name  # type: ignore[attr-defined]
    return module


def i18n_module(translated: list[str]) -> types.ModuleType:
    """The module `slicer.i18n`; every text that was to be translated is added to `translated`."""
    module = types.ModuleType("slicer.i18n")

    def tr(text: str) -> str:
        if not isinstance(text, str):
            message = f"expected a str, got {text!r}"
            raise TypeError(message)
        translated.append(text)
        return text

    module.tr = tr  # type: ignore[attr-defined]
    module.translate = lambda _context, text: tr(text)  # type: ignore[attr-defined]
    return module


def pytorch_utils_module(packaging: Packaging) -> types.ModuleType:
    """The module `PyTorchUtils` of the PyTorch extension."""

    class PyTorchUtilsLogic:
        @staticmethod
        def torchInstalled() -> bool:
            return packaging.pip_check("torch")

        def installTorch(
            self,
            askConfirmation: bool = False,
            forceComputationBackend: str | None = None,
            torchVersionRequirement: str | None = None,
            torchvisionVersionRequirement: str | None = None,
        ) -> Any:
            """`torch`, or None if the user declines."""
            wish = f"torch{torchVersionRequirement or ''}"
            packaging.calls.append(("installTorch", [wish]))
            if askConfirmation and packaging.refuse:
                return None
            packaging.missing.discard("torch")
            return importlib.import_module("torch")

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic  # type: ignore[attr-defined]
    return module
