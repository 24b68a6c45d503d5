"""The attention encoder-decoder of bentrevett's PyTorch notebooks.

    encoder.embedding.weight (source tokens, E)    encoder.rnn.…  torch.nn.GRU, two directions
    encoder.fc (D, 2 H)                            s_0 = tanh(fc [→m_S; ←m_1])
    decoder.attention.attn_fc (D, D + 2 H)         of [s; m_j]: W and U side by side, transposed, and their bias
    decoder.attention.v_fc (1, D)                  v
    decoder.embedding.weight (target tokens, E)    decoder.rnn.…  torch.nn.GRU of [embedding; context]
    decoder.fc_out (target tokens, D + 2 H + E)    of [s; c; embedding]

Source: bentrevett/pytorch-seq2seq, notebook 3. Older versions of it call `attn_fc` and `v_fc` `attn` and `v`; both are
read.
"""

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import AttentionDecoder
from kseq.weights import torch_layers
from kseq.weights.layer_rules import dense_rules
from kseq.weights.layout import Layout, Rule
from kseq.weights.torch_recurrent import recurrent_rules

REQUIRED = {"encoder.embedding.weight", "encoder.fc.weight", "decoder.embedding.weight", "decoder.fc_out.weight"}
SETTINGS = {"cell": "gru", "attention": "bahdanau", "score": "additive", "deep_output": True}


class Bahdanau(Layout):
    """`Seq2Seq` of the notebook into `RecurrentTranslator` with one layer of each and an initial state "dense".

    The weights of `encoder.rnn` and `decoder.rnn` may be of any size; `embed_dim`, `encoder_units` and `units` of the
    model are those of the checkpoint, and `attention_units` is `units`.
    """

    name = "bahdanau"

    def recognises(self, names: set[str]) -> bool:
        return names >= REQUIRED and any(name.startswith("decoder.attention.") for name in names)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        wanted = ("source_embedding", "encoder_0", "initial_state_0", "target_embedding", "attention_decoder", "logits")
        missing = [name for name in wanted if name not in layers]
        more = [name for name in ("encoder_1", "decoder_1", "maxout") if name in layers]
        decoder, encoder = layers.get("attention_decoder"), layers.get("encoder_0")
        if missing or more or not isinstance(decoder, AttentionDecoder):
            raise InputError(
                f"{model.name}: {f'lacks {missing[0]}' if missing else f'has {(*more, decoder)[0]}'}; this checkpoint "
                "goes into a RecurrentTranslator with one layer in encoder and decoder and the other defaults"
            )
        for setting, value in SETTINGS.items():
            if (ours := getattr(decoder, setting)) != value:
                raise InputError(f"{model.name}: {setting} {ours!r} of its decoder; build it with {value!r}")
        if not isinstance(encoder, keras.layers.Bidirectional) or not decoder.key_projection.use_bias:
            raise InputError(f"{model.name}: build it with bidirectional=True and use_score_bias=True")

        rules = [
            self._as_it_is(layers["source_embedding"].embeddings, "encoder.embedding.weight"),
            *recurrent_rules(encoder, "encoder.rnn."),
            *_linear(layers["initial_state_0"], "encoder.fc"),
            self._as_it_is(layers["target_embedding"].embeddings, "decoder.embedding.weight"),
            *recurrent_rules(decoder.recurrent, "decoder.rnn."),
            *_linear(layers["logits"], "decoder.fc_out"),
        ]
        suffix = "" if "decoder.attention.attn.weight" in tensors else "_fc"
        alignment, v = f"decoder.attention.attn{suffix}", f"decoder.attention.v{suffix}.weight"
        units, memory_dim, size = decoder.units, decoder.memory_dim, decoder.attention_units
        both = {f"{alignment}.weight": (size, units + memory_dim)}
        keys = decoder.key_projection
        return [
            *rules,
            Rule(decoder.query_projection.kernel, both, lambda weight: weight[:, :units].T),
            Rule(keys.kernel, both, lambda weight: weight[:, units:].T),
            Rule(keys.bias, {f"{alignment}.bias": (size,)}, np.asarray),
            Rule(decoder.v, {v: (1, size)}, np.transpose),
        ]

    @staticmethod
    def _as_it_is(variable: keras.Variable, name: str) -> Rule:
        return Rule(variable, {name: tuple(variable.shape)}, np.asarray)


def _linear(dense: keras.layers.Dense, name: str) -> list[Rule]:
    return dense_rules(dense, torch_layers.dense(name, *dense.kernel.shape))
