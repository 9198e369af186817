"""Where a base model is. Imports nothing heavy, so that a wrong name is found before anything is started."""

from pathlib import Path

from onmodel.core.errors import NotFoundError, UserError


def is_local(name_or_path: str) -> bool:
    """Whether a base model's name is a path rather than a hub id or `toybox`."""
    path = Path(name_or_path)
    return path.exists() or path.is_absolute() or name_or_path.startswith((".", "~")) or path.suffix == ".safetensors"


def locate_model(name_or_path: str) -> Path | str:
    """Where a base model is: a path on this machine, or the hub id itself.

    Raises:
        NotFoundError: a path that does not exist, or a hub id that is neither in the local cache nor reachable.
        UserError: a folder that is no diffusers pipeline.
    """
    if name_or_path == "toybox":
        from onmodel.toybox.models import bundled

        return bundled("diffusion")
    if not is_local(name_or_path):
        _check_hub(name_or_path)
        return name_or_path
    path = Path(name_or_path).expanduser()
    if not path.exists():
        raise NotFoundError(
            f"base model {name_or_path}: no such file or folder; give `toybox`, a diffusers folder, "
            "a .safetensors checkpoint or a hub id"
        )
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise UserError(f"base model {path}: the folder holds no model_index.json, so it is no diffusers pipeline")
    return path


def locate_vae(name: str) -> Path:
    """Where an autoencoder is: a diffusers folder of it, or a file. Raises NotFoundError, UserError."""
    path = Path(name).expanduser()
    if not path.exists():
        raise NotFoundError(f"vae {name}: no such file or folder; give a diffusers folder or a .safetensors file")
    if path.is_file():
        return path
    found = next((folder for folder in (path, path / "vae") if (folder / "config.json").is_file()), None)
    if found is None:
        raise UserError(f"vae {path}: the folder holds no config.json, so it is no autoencoder; check the path")
    return found


def _check_hub(name: str) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_download(name, "model_index.json")
    except HFValidationError:
        raise NotFoundError(
            f"base model {name!r}: neither a file nor a folder, and no hub id can look like this; "
            "give `toybox`, a diffusers folder, a .safetensors checkpoint or a hub id (owner/name)"
        ) from None
    except Exception as error:
        raise NotFoundError(
            f"base model {name}: not found on this machine, and the hub did not give it "
            f"({type(error).__name__}); check the name, or download it and give its folder"
        ) from None
