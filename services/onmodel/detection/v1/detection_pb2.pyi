from onmodel.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ShotType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHOT_TYPE_UNSPECIFIED: _ClassVar[ShotType]
    SHOT_TYPE_CLOSE_UP: _ClassVar[ShotType]
    SHOT_TYPE_MEDIUM: _ClassVar[ShotType]
    SHOT_TYPE_FULL_BODY: _ClassVar[ShotType]
    SHOT_TYPE_FAR: _ClassVar[ShotType]
    SHOT_TYPE_UNCLASSIFIED: _ClassVar[ShotType]

class Attribute(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTRIBUTE_UNSPECIFIED: _ClassVar[Attribute]
    ATTRIBUTE_MULTI_CHARACTER: _ClassVar[Attribute]
    ATTRIBUTE_OCCLUSION: _ClassVar[Attribute]
    ATTRIBUTE_COMPLEX_BACKGROUND: _ClassVar[Attribute]
SHOT_TYPE_UNSPECIFIED: ShotType
SHOT_TYPE_CLOSE_UP: ShotType
SHOT_TYPE_MEDIUM: ShotType
SHOT_TYPE_FULL_BODY: ShotType
SHOT_TYPE_FAR: ShotType
SHOT_TYPE_UNCLASSIFIED: ShotType
ATTRIBUTE_UNSPECIFIED: Attribute
ATTRIBUTE_MULTI_CHARACTER: Attribute
ATTRIBUTE_OCCLUSION: Attribute
ATTRIBUTE_COMPLEX_BACKGROUND: Attribute

class DetectRequest(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.Image]
    def __init__(self, images: _Optional[_Iterable[_Union[_common_pb2.Image, _Mapping]]] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DetectResult]
    def __init__(self, results: _Optional[_Iterable[_Union[DetectResult, _Mapping]]] = ...) -> None: ...

class DetectResult(_message.Message):
    __slots__ = ("detections", "error")
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    detections: ImageDetections
    error: _common_pb2.ItemError
    def __init__(self, detections: _Optional[_Union[ImageDetections, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class ImageDetections(_message.Message):
    __slots__ = ("width_px", "height_px", "instances", "occluders", "shot_type", "attributes", "main_index", "reason")
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    OCCLUDERS_FIELD_NUMBER: _ClassVar[int]
    SHOT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MAIN_INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    width_px: int
    height_px: int
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    occluders: _containers.RepeatedCompositeFieldContainer[Box]
    shot_type: ShotType
    attributes: _containers.RepeatedScalarFieldContainer[Attribute]
    main_index: int
    reason: str
    def __init__(self, width_px: _Optional[int] = ..., height_px: _Optional[int] = ..., instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., occluders: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., shot_type: _Optional[_Union[ShotType, str]] = ..., attributes: _Optional[_Iterable[_Union[Attribute, str]]] = ..., main_index: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("box", "confidence", "label", "face", "keypoints", "outline")
    BOX_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FACE_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    box: Box
    confidence: float
    label: str
    face: Box
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    outline: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., confidence: _Optional[float] = ..., label: _Optional[str] = ..., face: _Optional[_Union[Box, _Mapping]] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ..., outline: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x0", "y0", "x1", "y1")
    X0_FIELD_NUMBER: _ClassVar[int]
    Y0_FIELD_NUMBER: _ClassVar[int]
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    x0: float
    y0: float
    x1: float
    y1: float
    def __init__(self, x0: _Optional[float] = ..., y0: _Optional[float] = ..., x1: _Optional[float] = ..., y1: _Optional[float] = ...) -> None: ...

class Keypoint(_message.Message):
    __slots__ = ("x", "y", "confidence")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    confidence: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("model", "reload_error")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RELOAD_ERROR_FIELD_NUMBER: _ClassVar[int]
    model: _common_pb2.ModelInfo
    reload_error: str
    def __init__(self, model: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., reload_error: _Optional[str] = ...) -> None: ...
