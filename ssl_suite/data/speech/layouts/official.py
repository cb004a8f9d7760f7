"""The official layouts by name."""

from __future__ import annotations

from ssl_suite.data.common.source import Layouts
from ssl_suite.data.speech.layouts.fluent import fluent
from ssl_suite.data.speech.layouts.fsdd import fsdd
from ssl_suite.data.speech.layouts.iemocap import iemocap
from ssl_suite.data.speech.layouts.kaldi import kaldi
from ssl_suite.data.speech.layouts.lhotse import lhotse
from ssl_suite.data.speech.layouts.librimix import librimix
from ssl_suite.data.speech.layouts.librispeech import librispeech
from ssl_suite.data.speech.layouts.quesst import quesst14
from ssl_suite.data.speech.layouts.snips import audio_snips
from ssl_suite.data.speech.layouts.speech_commands import speech_commands
from ssl_suite.data.speech.layouts.voicebank import voicebank
from ssl_suite.data.speech.layouts.voxceleb import voxceleb1

LAYOUTS: Layouts = {
    "audio_snips": audio_snips,
    "fluent": fluent,
    "fsdd": fsdd,
    "iemocap": iemocap,
    "kaldi": kaldi,
    "lhotse": lhotse,
    "librimix": librimix,
    "librispeech": librispeech,
    "quesst14": quesst14,
    "speech_commands": speech_commands,
    "voicebank": voicebank,
    "voxceleb1": voxceleb1,
}
"""A source is `NAME:FOLDER`, or `NAME/PART:FOLDER`, see each layout for its parts."""
