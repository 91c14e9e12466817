"""The messages of TensorFlow Serving's protocol, without TensorFlow.

Their descriptors lie in `protos.binpb`, which `tools/make_client_protos.py` takes from the packages
of TensorFlow (copyright The TensorFlow Authors, Apache License 2.0). They are kept in a descriptor
pool of their own, so that they do not meet TensorFlow's when a process uses both, and need no
particular release of protobuf, as generated code would.
"""

from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load_pool() -> descriptor_pool.DescriptorPool:
    content = Path(__file__).with_name("protos.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load_pool()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


GetModelMetadataRequest: Final = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse: Final = _message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest: Final = _message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse: Final = _message("tensorflow.serving.GetModelStatusResponse")
ModelSpec: Final = _message("tensorflow.serving.ModelSpec")
ModelVersionStatus: Final = _message("tensorflow.serving.ModelVersionStatus")
PredictRequest: Final = _message("tensorflow.serving.PredictRequest")
PredictResponse: Final = _message("tensorflow.serving.PredictResponse")
SignatureDefMap: Final = _message("tensorflow.serving.SignatureDefMap")
TensorProto: Final = _message("tensorflow.TensorProto")

DataType: Final = _POOL.FindEnumTypeByName("tensorflow.DataType").values_by_name
"""The number of a data type: `DataType["DT_STRING"].number`."""
DataTypeName: Final = _POOL.FindEnumTypeByName("tensorflow.DataType").values_by_number
"""The name of a data type: `DataTypeName[7].name`."""
ModelState: Final = _POOL.FindEnumTypeByName(
    "tensorflow.serving.ModelVersionStatus.State"
).values_by_number
