"""Loading weights that are whole: what the files of a checkpoint lack is an error, never a random number."""

from __future__ import annotations

from typing import Any


def whole_model(model_class: Any, source: str, **options: Any) -> Any:
    """``model_class.from_pretrained``, of transformers or diffusers.

    Both libraries warn about tensors that the files lack, or have in another shape, and draw them. ValueError then.
    """
    part = f"/{options['subfolder']}" if options.get("subfolder") else ""
    try:
        model, info = model_class.from_pretrained(source, output_loading_info=True, **options)
    except RuntimeError as error:
        if "mismatch" not in str(error).lower():
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{source}{part}: the weights do not fit their configuration: {reason}") from None
    missing = sorted([*info["missing_keys"], *(str(key[0]) for key in info.get("mismatched_keys") or ())])
    if missing:
        raise ValueError(
            f"{source}{part}: the weights are not whole: {len(missing)} tensors of {type(model).__name__} are missing "
            f"or have another shape, the first is {missing[0]}"
        )
    return model
