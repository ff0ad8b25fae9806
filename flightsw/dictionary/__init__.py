"""The dictionary: what a node can be told and can tell, written once, in `components/*.toml`.

Flight, ground and documents read the same files. The digest of the whole is in every beacon, so that a ground segment
with another dictionary notices before it commands.
"""

from flightsw.dictionary.model import (
    ChannelSpec,
    CommandSpec,
    ComponentSpec,
    Dictionary,
    EventSpec,
    PacketSpec,
    ParameterKey,
    ParameterSpec,
    ValueSpec,
)
from flightsw.dictionary.source import flight_dictionary, load
from flightsw.dictionary.values import check_arguments, check_value, event_text

__all__ = [
    "ChannelSpec",
    "CommandSpec",
    "ComponentSpec",
    "Dictionary",
    "EventSpec",
    "PacketSpec",
    "ParameterKey",
    "ParameterSpec",
    "ValueSpec",
    "check_arguments",
    "check_value",
    "event_text",
    "flight_dictionary",
    "load",
]
