"""Random numbers that a backend draws outside the model, from a generator of the whole process."""

import base64

import keras


def random_state() -> list[str]:
    """The state of the generators of the process, as text: one a device on PyTorch, none elsewhere.

    Keras's dropout on PyTorch draws from PyTorch's own generator where it has no seed (Keras 3.15); on TensorFlow and
    JAX all random numbers come from the `SeedGenerator`s of the model.
    """
    if keras.backend.backend() != "torch":
        return []
    import torch

    states = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
    return [base64.b64encode(state.numpy().tobytes()).decode() for state in states]


def set_random_state(states: list[str]) -> None:
    """Continue from what `random_state` returned in another process on the same devices."""
    if keras.backend.backend() != "torch" or not states:
        return
    import torch

    cpu, *cuda = (torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8) for state in states)
    torch.set_rng_state(cpu)
    torch.cuda.set_rng_state_all(cuda[: torch.cuda.device_count()])
