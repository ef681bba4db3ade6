"""Packages that Slicer does not bring: what is missing, and installing it after asking."""

import importlib.util

import slicer
from slicer.i18n import tr as _

TORCH = "torch>=2.5"
OTHERS = ("scikit-image>=0.24", "safetensors>=0.4", "Jinja2>=3.1", "Pillow>=10.1", "filelock>=3.13")

TRAINING = ("lightning>=2.4", "PyYAML>=6", "tensorboard>=2.17", "tqdm>=4.66")
"""What a training needs besides."""

_IMPORTED_AS = {"scikit-image": "skimage", "Jinja2": "jinja2", "Pillow": "PIL", "PyYAML": "yaml"}


def missing(training: bool = False) -> list[str]:
    """Requirements that are not met, PyTorch first."""
    wanted = (TORCH, *OTHERS, *(TRAINING if training else ()))
    return [requirement for requirement in wanted if not _met(requirement)]


def _met(requirement: str) -> bool:
    packaging = _packaging()
    if packaging is not None:
        return bool(packaging.pip_check(requirement))
    name = requirement.partition(">")[0]
    return importlib.util.find_spec(_IMPORTED_AS.get(name, name)) is not None


def _packaging():
    """slicer.packaging, which came with Slicer 5.11; None before."""
    try:
        import slicer.packaging
    except ImportError:
        return None
    return slicer.packaging


def ensure(training: bool = False) -> bool:
    """Install what is missing if the user agrees, on request with what a training needs.

    Returns whether everything is there now.
    """
    wanted = missing(training)
    if not wanted:
        return True
    size = _("up to 3 GB, most of it PyTorch") if TORCH in wanted else _("less than 100 MB")
    question = _(
        "DRAMLesion needs packages that are not installed yet: {packages}.\n\nInstall them now? "
        "This downloads {size}, once. Nothing is sent about your images."
    ).format(packages=", ".join(wanted), size=size)
    if not slicer.util.confirmOkCancelDisplay(question, _("Install packages")):
        return False
    if TORCH in wanted and not _installTorch():
        return False
    rest = [requirement for requirement in wanted if requirement != TORCH]
    if rest:
        _install(rest)
    return not missing(training)


def _installTorch() -> bool:
    """Through the PyTorch extension where it is installed, which picks the build for the GPU."""
    try:
        import PyTorchUtils
    except ImportError:
        _install([TORCH])
        return True
    version = TORCH.removeprefix("torch")
    logic = PyTorchUtils.PyTorchUtilsLogic()
    # the user has agreed already
    return logic.installTorch(askConfirmation=False, torchVersionRequirement=version) is not None


def _install(requirements: list[str]) -> None:
    packaging = _packaging()
    if packaging is not None:
        # none of them asks for another numpy or SimpleITK than Slicer's: pip leaves those alone
        packaging.pip_ensure(requirements, prompt_install=False, requester="DRAMLesion")
    else:
        slicer.util.pip_install(requirements)
