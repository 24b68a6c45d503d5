"""Why gradients vanish or explode: measure ‖∂s_T/∂s_{T−n}‖ in seven recurrent networks that have not been trained.

The lecture's argument, measured: the derivative of the last state by an earlier one is a product of one matrix a step.
In h_t = tanh(U x_t + W h_{t−1} + b) its norm is at most β_w^n, β_w the largest singular value of W. Expect it to vanish
with a small W, to explode with a large one, and to vanish with that same large one once the inputs saturate the units:
β_w > 1 is necessary to explode, not sufficient. The IRNN (ReLU, W = I) keeps a norm of exactly 1. GRU and LSTM as they
are initialised lose the gradient too, the LSTM later, for its forget bias of 1; an LSTM whose biases hold the gates
open for up to T steps keeps it. Gates are what training can open; a vanilla network has W alone.

    kseq run apps/gradient_flow.py --backend jax
    kseq run apps/gradient_flow.py --length 200 --units 32 --sequences 1

The weights come from NumPy, so that the networks are the same on every backend.
"""

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq


def main(run: kseq.training.Run, *, units: int = 64, length: int = 100, sequences: int = 2) -> None:
    if run.quick:
        units, length = min(units, 16), min(length, 20)
    weights, data = np.random.default_rng(run.seed), np.random.default_rng(run.seed + 1)

    # Data: noise, as nothing is to be learnt
    inputs = data.normal(size=(sequences, length, units)).astype("float32")

    # Networks and their gradients
    flows = {}
    for name, layer in networks(units, length, weights).items():
        layer.build(inputs.shape)
        flows[name] = kseq.analysis.gradient_flow(layer, inputs)

    # Report
    print_report(flows, f"{length} steps, {units} units, {sequences} random sequences")
    run.save_json("metrics.json", {name: figures(flow) for name, flow in flows.items()})
    vanilla = {name: flow for name, flow in flows.items() if flow.bound is not None and flow.beta_w != 1}
    run.save_figure("gradient_flow.png", kseq.analysis.plot_comparison(flows))
    run.save_figure("gradient_flow_bound.png", kseq.analysis.plot_decay(vanilla))
    run.save_figure("gradient_flow_loss.png", kseq.analysis.plot_loss_gradients(flows))
    run.save_figure("gradient_flow_lstm.png", kseq.analysis.plot_heat_map(flows["LSTM"], "LSTM"))


def networks(units: int, length: int, random: np.random.Generator) -> dict[str, keras.layers.RNN]:
    """The networks by name; all read the same inputs, of `units` features."""
    U = random.normal(scale=units**-0.5, size=(units, units))
    W = np.linalg.qr(random.normal(size=(units, units)))[0]  # orthogonal: all its singular values are 1

    def vanilla(kernel, recurrent, activation="tanh"):
        return kseq.layers.SimpleRNN(
            units, activation=activation, kernel_initializer=constant(kernel), recurrent_initializer=constant(recurrent)
        )

    def gated(layer, gates, **arguments):
        """As Keras initialises it: Glorot-uniform U, W with orthonormal rows."""
        limit = np.sqrt(6 / (units + gates * units))
        return layer(
            units,
            kernel_initializer=constant(random.uniform(-limit, limit, size=(units, gates * units))),
            recurrent_initializer=constant(np.linalg.qr(random.normal(size=(gates * units, units)))[0].T),
            **arguments,
        )

    # Chrono initialisation (Tallec & Ollivier, ICLR 2018): memories of 1 to T − 1 steps
    forget = np.log(random.uniform(1, length - 1, size=units))
    chrono = np.concatenate([-forget, forget, np.zeros(2 * units)])  # gates i, f, c, o

    return {
        "RNN, small W": vanilla(0.1 * U, 0.9 * W),
        "RNN, large W": vanilla(0.1 * U, 1.5 * W),
        "RNN, large W, strong inputs": vanilla(2 * U, 1.5 * W),
        "IRNN": vanilla(0.001 * units**0.5 * U, np.eye(units), "relu"),  # Le, Jaitly & Hinton 2015: U of N(0, 0.001²)
        "GRU": gated(kseq.layers.GRU, 3),
        "LSTM": gated(kseq.layers.LSTM, 4),
        "LSTM, chrono biases": gated(kseq.layers.LSTM, 4, bias_initializer=constant(chrono), unit_forget_bias=False),
    }


def constant(array: np.ndarray):
    """The initializer that gives `array`."""
    return lambda shape, dtype=None: keras.ops.convert_to_tensor(array.reshape(shape), dtype)


def figures(flow: kseq.analysis.GradientFlow) -> dict:
    """What `metrics.json` says of a network: medians over the sequences."""
    return {
        "beta_w": flow.beta_w,
        "beta_h": flow.beta_h,
        "steps_to_lose_99.9%": flow.steps_to_lose(0.999),
        "norm_after_1_step": float(np.median(flow.decay[:, 1])),
        "norm_at_the_first_step": float(np.median(flow.decay[:, -1])),
        "loss_gradient_at_the_first_step": float(np.median(flow.loss_gradients[:, 0])),
        "loss_gradient_at_the_last_step": float(np.median(flow.loss_gradients[:, -1])),
    }


def print_report(flows: dict[str, kseq.analysis.GradientFlow], title: str) -> None:
    """The networks beside each other."""
    table = Table("network", "β_w", "‖∂s_T/∂s_{T−1}‖", "‖∂s_T/∂s_1‖", "99.9 % lost after", title=title)
    for name, flow in flows.items():
        row, steps = figures(flow), flow.decay.shape[1] - 1
        lost, last = row["steps_to_lose_99.9%"], row["norm_at_the_first_step"]
        if lost is not None:
            verdict = f"{lost} steps"
        else:
            verdict = f"explodes ×{float(f'{last:.2g}'):,.0f}" if last > 10 else f"never in {steps} steps"
        beta = "" if flow.beta_w is None else f"{flow.beta_w:.2f}"
        table.add_row(name, beta, f"{row['norm_after_1_step']:.2f}", f"{last:.2g}", verdict)
    Console().print(table)


if __name__ == "__main__":
    kseq.training.launch(main)
