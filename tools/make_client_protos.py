"""Writes the descriptors of the messages that the client sends and reads.

They are taken, unchanged, from the installed `tensorflow-serving-api` and `tensorflow` (both under
the Apache License 2.0, as this repository is), so that the client needs neither. Run it again when
either is updated; a test compares its output with the file that is committed.

    python tools/make_client_protos.py
"""

from pathlib import Path

from google.protobuf import descriptor, descriptor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

OUTPUT = Path(__file__).parents[1] / "serving" / "client" / "protos.binpb"


def descriptor_set() -> descriptor_pb2.FileDescriptorSet:
    """Returns the files of the client's messages and all that they import, imports first."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file: descriptor.FileDescriptor) -> None:
        if file.name in files:
            return
        for imported in file.dependencies:
            add(imported)
        files[file.name] = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)

    for module in (predict_pb2, get_model_status_pb2, get_model_metadata_pb2):
        add(module.DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=files.values())


if __name__ == "__main__":
    OUTPUT.write_bytes(descriptor_set().SerializeToString(deterministic=True))
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")
