"""Class activation maps on their definition: from feature maps and the score's gradient by them."""

import numpy as np

from onnxlrp.reference.operators import Array


def _grad_cam(maps: Array, gradient: Array) -> Array:
    """max(0, sum_k w_k A_k), w_k the mean of the gradient (Selvaraju et al. 2017, eqs. 1 and 2)."""
    places = tuple(range(2, maps.ndim))
    weights = gradient.mean(axis=places, keepdims=True)
    return np.asarray(np.maximum((weights * maps).sum(axis=1), 0))


def _grad_cam_plus_plus(maps: Array, gradient: Array) -> Array:
    """The same with weights sum_p a_p max(g_p, 0), a = g² / (2 g² + g³ sum A) where g is not 0.

    Chattopadhay et al. 2018, eqs. 10 and 19; derivatives are those of exp(S), whose own factor all
    weights share.
    """
    places = tuple(range(2, maps.ndim))
    below = 2 * gradient**2 + gradient**3 * maps.sum(axis=places, keepdims=True)
    part = np.divide(gradient**2, below, out=np.zeros_like(below), where=gradient != 0)
    weights = (part * np.maximum(gradient, 0)).sum(axis=places, keepdims=True)
    return np.asarray(np.maximum((weights * maps).sum(axis=1), 0))


def _hires_cam(maps: Array, gradient: Array) -> Array:
    """sum_k A_k g_k (Draelos and Carin 2020, eq. 3)."""
    return np.asarray((maps * gradient).sum(axis=1))


MAPS = {"Grad-CAM": _grad_cam, "Grad-CAM++": _grad_cam_plus_plus, "HiRes-CAM": _hires_cam}


def activation_map(kind: str, maps: Array, gradient: Array, sizes: tuple[int, ...]) -> Array:
    """Return a class activation map in the size of a picture, [N, *sizes].

    Parameters
    ----------
    kind
        One of `MAPS`.
    maps, gradient
        [N, K, ...], the feature maps and the derivative of the score by them.
    sizes
        Of the picture. Between the places of the map it is interpolated linearly; both have their
        borders, not the middles of their outermost pixels, in common.
    """
    drawn = MAPS[kind](maps.astype(np.float64), gradient.astype(np.float64))
    for axis, size in enumerate(sizes, 1):
        count = drawn.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, count - 1)
        column = (at - low).reshape(-1, *(1,) * (drawn.ndim - 1 - axis))
        drawn = (1 - column) * drawn.take(low, axis) + column * drawn.take(high, axis)
    return drawn
