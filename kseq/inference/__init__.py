"""Decoding: greedy, beam search, sampling, streaming, of tokens and texts; and sliding windows over images."""

from kseq.inference.beam import beam_search
from kseq.inference.decoder import Decoder, UncachedDecoder, decoder
from kseq.inference.generate import continue_text, stream_text, translate
from kseq.inference.hypotheses import Hypotheses
from kseq.inference.sampling import greedy, sample, stream
from kseq.inference.sliding_window import SlidingWindow
from kseq.inference.video_tagger import OnlineMultiStageTCN, OnlineVideoTagger, online

__all__ = [
    "Decoder",
    "Hypotheses",
    "OnlineMultiStageTCN",
    "OnlineVideoTagger",
    "SlidingWindow",
    "UncachedDecoder",
    "beam_search",
    "continue_text",
    "decoder",
    "greedy",
    "online",
    "sample",
    "stream",
    "stream_text",
    "translate",
]
