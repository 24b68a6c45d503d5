"""What differs between the backends of Keras; nothing else in kseq asks which backend it is on."""

from kseq.backend.choice import BACKENDS, choose_backend, require_backend

__all__ = ["BACKENDS", "choose_backend", "require_backend"]
