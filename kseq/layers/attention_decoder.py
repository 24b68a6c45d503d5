"""A recurrent decoder that looks at an encoded sequence: whole target sequences at once, or step by step."""

from typing import Literal

import keras
from keras import ops

from kseq.backend.attention_recurrence import (
    additive_recurrence,
    additive_step,
    attend,
    attention_vector,
    dot_scores,
    fed_recurrence,
    fed_step,
)
from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.recurrent import CELLS

SCORES = {"bahdanau": ("additive", "normed"), "luong": ("general", "dot", "scaled"), None: (None,)}


@keras.saving.register_keras_serializable(package="kseq")
class AttentionDecoder(keras.layers.Layer):
    """A recurrent layer s_t = cell([x_t; …], s_{t-1}) with attention to a memory m_1 … m_S, the encoded source.

    `attention="bahdanau"`: the state before the step asks, and the answer c_t enters the step.

        e_tj = v · tanh(s_{t-1} W + m_j U + b)              score "additive"
        e_tj = g v/‖v‖ · tanh(s_{t-1} W + m_j U + b)        score "normed"
        w_t = softmax(e_t),  c_t = Σ_j w_tj m_j,  s_t = cell([x_t; c_t], s_{t-1})

    The output is [s_t; c_t], with `deep_output` [s_t; c_t; x_t], of which the word is predicted: g(y_{t-1}, s_t, c_t)
    of section 3.1. The paper's appendix A.2.2 and GroundHog read s_{t-1} there.

    `attention="luong"`: the state of the step asks, and the answer is joined to it.

        e_tj = s_t · m_j (score "dot"),  s_t · m_j W ("general")  or  g s_t · m_j W ("scaled")
        w_t = softmax(e_t),  c_t = Σ_j w_tj m_j,  h̃_t = tanh([c_t; s_t] W_c)

    The output is h̃_t. With `input_feeding` s_t = cell([x_t; h̃_{t-1}], s_{t-1}), h̃_0 = 0; without, all steps of the cell
    run before all of the attention.

    `attention=None`: the output is s_t, with `deep_output` [s_t; x_t]. A memory, if there is one, is a vector c that
    enters every step, s_t = cell([x_t; c], s_{t-1}), and the output is [s_t; c] or [s_t; c; x_t] (Cho).

    Step by step the outputs are those of the whole sequence:

        keys, memory = decoder.project(memory, memory_mask)
        states = decoder.first_states(initial_state)
        output, states, weights = decoder.step(x[:, t], states, memory, keys, memory_mask)

    Sources: Bahdanau et al. 2015 (arXiv 1409.0473), section 3.1 and appendix A.1.2; Luong et al. 2015 (arXiv
    1508.04025), section 3; "normed" and "scaled": TensorFlow's neural machine translation tutorial; `None`: Sutskever
    et al. 2014 (arXiv 1409.3215), Cho et al. 2014 (arXiv 1406.1078).

    Args:
        units: size of s.
        cell: "gru", "lstm" or "rnn", the equations of `kseq.layers`; for the LSTM s is its h.
        attention: "bahdanau", "luong" or `None`.
        score: see above; `None` is "additive" or "general".
        attention_units: size of v, or of h̃; `None` is `units`. Without attention there is none.
        input_feeding: whether h̃ is fed back, with "luong" only.
        deep_output: whether the output ends with x_t, not with "luong".
        use_score_bias: whether there is a b; "normed" always has one. Bahdanau has none, many implementations have.
        reset_after: of the GRU, see `kseq.layers.GRU`.

    Call arguments:
        inputs: x, `(batch, time, dim)`.
        memory: m, `(batch, source_time, memory_dim)`; without attention c, `(batch, memory_dim)`, or `None`.
        initial_state: s_0, a list of `(batch, units)`, for an LSTM h and c; zeros if `None`.
        memory_mask: booleans `(batch, source_time)`; Keras fills it in from the mask of `memory`.
        return_attention_scores: whether to return `(output, w)`, w `(batch, time, source_time)`.

    Masking: a masked position of the memory has weight 0, and what stands there, NaN included, reaches no output; where
    all are masked, all weights are 0. The mask of `inputs` is ignored: padding on the right cannot reach an earlier
    step, and the loss leaves out what comes of it. The output has no mask.

    Output shape: `(batch, time, units + memory_dim)` with "bahdanau", `(batch, time, attention_units)` with "luong",
    `(batch, time, units)` without attention and memory; plus `dim` with `deep_output`.

    The gradient is that of `Recurrence`: no forward mode, and on TensorFlow and PyTorch no second derivative.

    Raises:
        InputError: for an argument out of range or that does not go with another, or a memory or states that do not
            fit.
    """

    def __init__(
        self,
        units: int,
        *,
        cell: Literal["gru", "lstm", "rnn"] = "gru",
        attention: Literal["bahdanau", "luong"] | None = "bahdanau",
        score: str | None = None,
        attention_units: int | None = None,
        input_feeding: bool = False,
        deep_output: bool = False,
        use_score_bias: bool = True,
        reset_after: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if cell not in CELLS:
            raise InputError(f"cell {cell!r}: choose one of {', '.join(CELLS)}")
        if attention not in SCORES:
            raise InputError(f"attention {attention!r}: give 'bahdanau', 'luong' or None")
        score = score or SCORES[attention][0]
        if score not in SCORES[attention]:
            raise InputError(
                f"score {score!r} with attention {attention!r}: choose one of {', '.join(map(str, SCORES[attention]))}"
            )
        if units < 1:
            raise InputError(f"units {units!r}: give 1 or more")
        if attention_units is not None and (attention_units < 1 or attention is None):
            raise InputError(f"attention_units {attention_units!r}: give 1 or more, or None without attention")
        if input_feeding and attention != "luong":
            raise InputError(
                f"input_feeding True with attention {attention!r}: feeds back the attention vector of 'luong'"
            )
        if deep_output and attention == "luong":
            raise InputError("deep_output True with attention 'luong': its output is the attention vector; set False")
        self.units, self.cell, self.attention, self.score = units, cell, attention, score
        self.attention_units = attention_units or (units if attention else None)
        self.input_feeding, self.deep_output = input_feeding, deep_output
        self.use_score_bias, self.reset_after = use_score_bias, reset_after
        self.supports_masking = True

    def build(self, inputs_shape, memory_shape=None, initial_state_shape=None):
        self.dim, self.memory_dim = inputs_shape[-1], memory_shape[-1] if memory_shape else 0
        if self.attention and (memory_shape is None or len(memory_shape) != 3):
            raise InputError(f"memory of shape {memory_shape}: give (batch, source_time, memory_dim)")
        if not self.attention and memory_shape is not None and len(memory_shape) != 2:
            raise InputError(f"memory of shape {memory_shape}: without attention give one vector, (batch, memory_dim)")
        more = {"reset_after": self.reset_after} if self.cell == "gru" else {}
        self.recurrent = CELLS[self.cell](
            self.units, return_sequences=True, return_state=True, dtype=self.dtype_policy, name="recurrent", **more
        )
        answer = self.attention_units if self.input_feeding else 0 if self.attention == "luong" else self.memory_dim
        self.recurrent.build((None, None, self.dim + answer))

        if self.attention == "bahdanau":
            has_bias = self.use_score_bias or self.score == "normed"
            self.query_projection = self._dense(self.attention_units, self.units, "query", use_bias=False)
            self.key_projection = self._dense(self.attention_units, self.memory_dim, "memory", use_bias=has_bias)
            self.v = self.add_weight(shape=(self.attention_units, 1), initializer="glorot_uniform", name="v")
        if self.attention == "luong":
            if self.score != "dot":
                self.key_projection = self._dense(self.units, self.memory_dim, "memory", use_bias=False)
            elif self.memory_dim != self.units:
                raise InputError(
                    f"score 'dot' with units {self.units} and a memory of size {self.memory_dim}: give equal sizes, or "
                    "score 'general'"
                )
            self.vector = self._dense(self.attention_units, self.memory_dim + self.units, "vector", use_bias=False)
        if self.score in ("normed", "scaled"):
            first = self.attention_units**-0.5 if self.score == "normed" else 1.0  # TensorFlow's
            self.g = self.add_weight(shape=(), initializer=keras.initializers.Constant(first), name="g")
        self.built = True

    def _dense(self, units: int, inputs: int, name: str, *, use_bias: bool) -> Dense:
        dense = Dense(units, use_bias=use_bias, dtype=self.dtype_policy, name=name)
        dense.build((None, inputs))
        return dense

    def project(self, memory, memory_mask=None):
        """Keys and memory as `step` takes them: computed once for all steps, and 0 where the mask is false.

        Returns:
            keys `(batch, source_time, size)` and the memory; without attention `None` and the memory.
        """
        if memory is None or not self.attention:
            return None, memory
        memory = ops.cast(memory, self.compute_dtype)
        if memory_mask is not None:
            memory = ops.where(memory_mask[..., None], memory, 0)
        keys = memory if self.score == "dot" else self.key_projection(memory)
        return (keys * ops.cast(self.g, keys.dtype) if self.score == "scaled" else keys), memory

    def first_states(self, initial_state=None, batch_size=None):
        """The states before the first step: `initial_state`, or zeros for `batch_size`, with h̃_0 if it is fed back."""
        if initial_state is None:
            states = [ops.zeros((batch_size, self.units), self.compute_dtype) for _ in range(self._state_count())]
        else:
            states = [ops.cast(state, self.compute_dtype) for state in initial_state]
        if self.input_feeding:
            states.append(ops.zeros((ops.shape(states[0])[0], self.attention_units), self.compute_dtype))
        return tuple(states)

    def _state_count(self) -> int:
        return 2 if self.cell == "lstm" else 1

    def step(self, x, states, memory=None, keys=None, memory_mask=None):
        """One step: what `call` gives for it.

        Args:
            x: x_t, `(batch, dim)`.
            states: of the step before, or `first_states`.
            memory: as `project` gives it.
            keys: as `project` gives them.
            memory_mask: booleans `(batch, source_time)` or `None`.

        Returns:
            The output `(batch, size)`, the states, and w_t `(batch, source_time)` or `None`.
        """
        x = ops.cast(x, self.compute_dtype)
        equations, kernel, bias = self.recurrent._equations(), *self._recurrent_weights()
        a = ops.matmul(x, self._input_kernel()) + self._biases()[0]
        if self.attention == "bahdanau":
            query_kernel, v, context_kernel = self._additive_weights()
            states, _, seen, weights, _ = additive_step(
                equations, a, states, memory, memory_mask, keys, query_kernel, v, context_kernel, kernel, bias
            )
            return self._join(states[0], seen, x), states, weights
        if self.input_feeding:
            states, _, _, weights = fed_step(
                equations, a, states, memory, memory_mask, keys, *self._fed_weights(), kernel, bias
            )
            return states[-1], states, weights
        if self.attention is None:
            if memory is not None:
                a = a + ops.matmul(ops.cast(memory, a.dtype), self._answer_kernel())
            states, _ = equations.forward(a, states, kernel, bias)
            return self._join(states[0], memory, x), states, None
        states, _ = equations.forward(a, states, kernel, bias)
        weights, seen = attend(dot_scores(states[0], keys), memory_mask, memory)
        return attention_vector(seen, states[0], self._weight(self.vector.kernel)), states, weights

    def call(
        self,
        inputs,
        memory=None,
        initial_state=None,
        *,
        mask=None,
        inputs_mask=None,
        memory_mask=None,
        return_attention_scores=False,
        training=None,
    ):
        if return_attention_scores and not self.attention:
            raise InputError("return_attention_scores True: there are none with attention None")
        if (memory is None) != (self.memory_dim == 0):
            raise InputError(
                f"memory: {self.name} was built {'with' if self.memory_dim else 'without'} one; keep to it"
            )
        x = ops.cast(inputs, self.compute_dtype)
        memory_mask = None if memory_mask is None or not self.attention else ops.cast(memory_mask, "bool")
        keys, memory = self.project(memory, memory_mask)
        states = self.first_states(initial_state, ops.shape(x)[0])
        if len(states) != self._state_count() + self.input_feeding:
            raise InputError(f"initial_state: {self.name} has {self._state_count()}, (batch, units) each")
        weights = None
        if self.attention == "bahdanau" or self.input_feeding:
            rows = ops.reshape(x, (-1, self.dim))
            a = ops.matmul(rows, self._input_kernel()) + self._biases()[0]
            a = ops.reshape(a, (-1, *ops.shape(x)[1:2], a.shape[-1]))  # (batch, time, gates · units)
            kernel, bias = self._recurrent_weights()
            arguments = (self.recurrent._equations(), a, states, memory, memory_mask, keys)
            if self.input_feeding:
                outputs, weights = fed_recurrence(*arguments, *self._fed_weights(), kernel, bias, training=training)
            else:
                s, seen, weights = additive_recurrence(
                    *arguments, *self._additive_weights(), kernel, bias, training=training
                )
                outputs = self._join(s, seen, x)
        elif self.attention == "luong":
            s = self._run(x, states, training)
            weights, seen = attend(ops.matmul(s, ops.transpose(keys, (0, 2, 1))), memory_mask, memory)
            outputs = attention_vector(seen, s, self._weight(self.vector.kernel))
        else:
            if memory is not None:
                memory = ops.cast(memory, x.dtype)[:, None]  # (batch, 1, memory_dim)
                memory = ops.repeat(memory, ops.shape(x)[1], axis=1)
            s = self._run(self._join(x, memory), states, training)
            outputs = self._join(s, memory, x)
        return (outputs, weights) if return_attention_scores else outputs

    def _run(self, x, states, training):
        """The recurrent layer alone, all steps at once, `(batch, time, units)`."""
        return self.recurrent.inner_loop(x, list(states), None, training=bool(training))[1]

    def _join(self, first, second, third=None):
        parts = [first, second, third if self.deep_output else None]
        parts = [ops.cast(part, self.compute_dtype) for part in parts if part is not None]
        return ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]

    def _weight(self, variable):
        return ops.cast(variable, self.compute_dtype)

    def _input_kernel(self):
        return self._weight(self.recurrent.cell.kernel)[: self.dim]

    def _answer_kernel(self):
        """The rows of the kernel that what was looked up is multiplied by."""
        return self._weight(self.recurrent.cell.kernel)[self.dim :]

    def _biases(self):
        return [self._weight(bias) for bias in self.recurrent._biases()]

    def _recurrent_weights(self):
        return self._weight(self.recurrent.cell.recurrent_kernel), next(iter(self._biases()[1:]), None)

    def _additive_weights(self):
        v = ops.cast(self.v, "float32")[:, 0]
        if self.score == "normed":
            v = v * (ops.cast(self.g, "float32") * ops.rsqrt(ops.sum(v * v)))
        return self._weight(self.query_projection.kernel), self._weight(v), self._answer_kernel()

    def _fed_weights(self):
        return self._weight(self.vector.kernel), self._answer_kernel()

    def compute_mask(self, *arguments, **more):
        return None

    def compute_output_spec(self, inputs, memory=None, initial_state=None, *, return_attention_scores=False, **more):
        shape = self.compute_output_shape(inputs.shape, None if memory is None else memory.shape)
        outputs = keras.KerasTensor(shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        return outputs, keras.KerasTensor((*inputs.shape[:2], memory.shape[1]), dtype=self.compute_dtype)

    def compute_output_shape(self, inputs_shape, memory_shape=None, initial_state_shape=None):
        if self.attention == "luong":
            return (*inputs_shape[:-1], self.attention_units)
        size = self.units + (memory_shape[-1] if memory_shape else 0) + self.deep_output * inputs_shape[-1]
        return (*inputs_shape[:-1], size)

    def get_config(self):
        return super().get_config() | {
            "units": self.units,
            "cell": self.cell,
            "attention": self.attention,
            "score": self.score,
            "attention_units": self.attention_units,
            "input_feeding": self.input_feeding,
            "deep_output": self.deep_output,
            "use_score_bias": self.use_score_bias,
            "reset_after": self.reset_after,
        }
