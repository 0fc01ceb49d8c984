"""ResNet in NumPy, by loops over output pixels: what the module is checked against."""

import jax
import numpy as np

from ser_jax.models.resnet import ResNet


class Loops:
    """The same network in NumPy, by loops, on pictures of any sizes."""

    def __init__(self, model: ResNet, tree, train: bool):
        self.model, self.train = model, train
        self.params = jax.tree.map(np.asarray, tree["params"])
        self.stats = jax.tree.map(np.asarray, tree["batch_stats"])
        self.new_stats: dict = {}

    def conv(self, x, kernel, stride, padding=None):
        k = kernel.shape[0]
        p = k // 2 if padding is None else padding
        x = np.pad(x, [(p, p), (p, p), (0, 0)])
        rows, cols = ((side - k) // stride + 1 for side in x.shape[:2])
        out = np.zeros((rows, cols, kernel.shape[-1]))
        for i, j in np.ndindex(rows, cols):
            window = x[i * stride : i * stride + k, j * stride : j * stride + k]
            out[i, j] = np.tensordot(window, kernel, axes=3)
        return out

    def pool(self, x):
        x = np.pad(x, [(1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
        out = np.zeros((x.shape[0] // 2 - 1, x.shape[1] // 2 - 1, x.shape[2]))
        for i, j in np.ndindex(*out.shape[:2]):
            out[i, j] = x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(0, 1))
        return out

    def conv_norm(self, maps, path, stride=1, relu=True, padding=None):
        params, stats = self.params, self.stats
        for name in path.split("/"):
            params, stats = params[name], stats[name]
        maps = [self.conv(x, params["conv"]["kernel"], stride, padding) for x in maps]
        mean, var = stats["bn"]["mean"], stats["bn"]["var"]
        if self.train:
            cells = np.concatenate([x.reshape(-1, x.shape[-1]) for x in maps])
            batch_mean, batch_var = cells.mean(axis=0), cells.var(axis=0)
            self.new_stats[path] = (
                0.9 * mean + 0.1 * batch_mean,
                0.9 * var + 0.1 * batch_var,
            )
            mean, var = batch_mean, batch_var
        scale, bias = params["bn"]["scale"], params["bn"]["bias"]
        maps = [(x - mean) / np.sqrt(var + 1e-5) * scale + bias for x in maps]
        return [np.maximum(x, 0) for x in maps] if relu else maps

    def residual_block(self, maps, path, stride):
        if self.model.block == "basic":
            branch = self.conv_norm(maps, f"{path}/layer1", stride)
            branch = self.conv_norm(branch, f"{path}/layer2", relu=False)
        else:
            branch = self.conv_norm(maps, f"{path}/layer1")
            branch = self.conv_norm(branch, f"{path}/layer2", stride)
            branch = self.conv_norm(branch, f"{path}/layer3", relu=False)
        if "shortcut" in self.params[path]:
            maps = self.conv_norm(maps, f"{path}/shortcut", stride, relu=False)
        return [np.maximum(x + y, 0) for x, y in zip(maps, branch, strict=True)]

    def __call__(self, pictures):
        """Maps after each stage."""
        small = self.model.small_images
        stride, padding = 1 if small else 2, self.model.stem_padding
        maps = self.conv_norm(pictures, "stem/layer1", stride, padding=padding)
        maps = maps if small else [self.pool(x) for x in maps]
        stages = {}
        for stage, num_blocks in enumerate(self.model.stage_sizes, start=1):
            for i in range(1, num_blocks + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                maps = self.residual_block(maps, f"stage{stage}_block{i}", stride)
            stages[stage] = maps
        return stages
