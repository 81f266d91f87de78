"""Reference implementations of normalizing flows, and the laws that they obey.

One module a topic, named as the lesson that teaches it. Modules load when they are first used, so that
`import flowkit` stays light: it needs NumPy and not torch.
"""

import importlib

_MODULES = {
    "adaptive_ode",
    "autoregressive",
    "bijection",
    "capstone",
    "causal",
    "change_of_variables",
    "continuous",
    "coupling",
    "density",
    "density_ratio",
    "determinants",
    "dimension",
    "discriminators",
    "dual",
    "elbo",
    "elementwise",
    "energies",
    "flow",
    "flow_matching",
    "glow",
    "hamiltonian",
    "hutchinson",
    "images",
    "jacobians",
    "kernels",
    "lab",
    "laws",
    "likelihoods",
    "linear",
    "lipschitz",
    "log_det_series",
    "low_rank",
    "made",
    "maps",
    "mixtures",
    "neural_ode",
    "normalization",
    "ode",
    "pixels",
    "planar",
    "posteriors",
    "raster",
    "residual",
    "splines",
    "stochastic",
    "vae",
    "variational",
    "wavenet",
}
_NAMES = {
    "Bijection": "bijection",
    "Compose": "bijection",
    "Inverse": "bijection",
    "Flow": "flow",
    "StandardNormal": "flow",
    "check_bijection": "laws",
}
__all__ = sorted(_MODULES | set(_NAMES))


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"flowkit.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"flowkit.{_NAMES[name]}"), name)
    raise AttributeError(f"flowkit has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
