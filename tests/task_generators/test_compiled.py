import numba
import numpy as np
import pytest
from numba.core import caching

from task_generators.compiled import compiled


def total(numbers: np.ndarray) -> int:
    result = 0
    for number in numbers:
        result += number
    return result


def test_functions_are_compiled_and_kept() -> None:
    kernel = compiled(total)
    assert kernel(np.arange(5)) == 10
    assert kernel.signatures
    assert kernel.stats.cache_path


def test_where_nothing_can_be_written_kernels_work_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cache_class = getattr(caching, "CacheImpl", None) or caching._CacheImpl  # or its name in older versions
    monkeypatch.setattr(cache_class, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(total)
    assert compiled(total)(np.arange(5)) == 10
