from onmodel.common.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Embedding(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class EmbedImagesRequest(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.Image]
    def __init__(self, images: _Optional[_Iterable[_Union[_common_pb2.Image, _Mapping]]] = ...) -> None: ...

class EmbedImagesResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[EmbedImageResult]
    def __init__(self, results: _Optional[_Iterable[_Union[EmbedImageResult, _Mapping]]] = ...) -> None: ...

class EmbedImageResult(_message.Message):
    __slots__ = ("embedding", "error")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    embedding: Embedding
    error: _common_pb2.ItemError
    def __init__(self, embedding: _Optional[_Union[Embedding, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class EmbedTextsRequest(_message.Message):
    __slots__ = ("texts",)
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, texts: _Optional[_Iterable[str]] = ...) -> None: ...

class EmbedTextsResponse(_message.Message):
    __slots__ = ("embeddings",)
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    def __init__(self, embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("mean", "low", "high", "count")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    mean: float
    low: float
    high: float
    count: int
    def __init__(self, mean: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class IndexedError(_message.Message):
    __slots__ = ("index", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    error: _common_pb2.ItemError
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class ImageGroup(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.Image]
    def __init__(self, images: _Optional[_Iterable[_Union[_common_pb2.Image, _Mapping]]] = ...) -> None: ...

class ScoreConsistencyRequest(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ImageGroup]
    def __init__(self, groups: _Optional[_Iterable[_Union[ImageGroup, _Mapping]]] = ...) -> None: ...

class ScoreConsistencyResponse(_message.Message):
    __slots__ = ("groups", "overall")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    OVERALL_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupResult]
    overall: Interval
    def __init__(self, groups: _Optional[_Iterable[_Union[GroupResult, _Mapping]]] = ..., overall: _Optional[_Union[Interval, _Mapping]] = ...) -> None: ...

class GroupResult(_message.Message):
    __slots__ = ("consistency", "error", "image_errors")
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    consistency: GroupConsistency
    error: _common_pb2.ItemError
    image_errors: _containers.RepeatedCompositeFieldContainer[IndexedError]
    def __init__(self, consistency: _Optional[_Union[GroupConsistency, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ..., image_errors: _Optional[_Iterable[_Union[IndexedError, _Mapping]]] = ...) -> None: ...

class GroupConsistency(_message.Message):
    __slots__ = ("pairwise", "minimum")
    PAIRWISE_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    pairwise: Interval
    minimum: float
    def __init__(self, pairwise: _Optional[_Union[Interval, _Mapping]] = ..., minimum: _Optional[float] = ...) -> None: ...

class ScoreIdentityRequest(_message.Message):
    __slots__ = ("images", "references", "impostors")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    REFERENCES_FIELD_NUMBER: _ClassVar[int]
    IMPOSTORS_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_common_pb2.Image]
    references: _containers.RepeatedCompositeFieldContainer[_common_pb2.Image]
    impostors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Image]
    def __init__(self, images: _Optional[_Iterable[_Union[_common_pb2.Image, _Mapping]]] = ..., references: _Optional[_Iterable[_Union[_common_pb2.Image, _Mapping]]] = ..., impostors: _Optional[_Iterable[_Union[_common_pb2.Image, _Mapping]]] = ...) -> None: ...

class ScoreIdentityResponse(_message.Message):
    __slots__ = ("results", "overall", "reference_errors", "impostor_errors")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    OVERALL_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    IMPOSTOR_ERRORS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[IdentityResult]
    overall: Interval
    reference_errors: _containers.RepeatedCompositeFieldContainer[IndexedError]
    impostor_errors: _containers.RepeatedCompositeFieldContainer[IndexedError]
    def __init__(self, results: _Optional[_Iterable[_Union[IdentityResult, _Mapping]]] = ..., overall: _Optional[_Union[Interval, _Mapping]] = ..., reference_errors: _Optional[_Iterable[_Union[IndexedError, _Mapping]]] = ..., impostor_errors: _Optional[_Iterable[_Union[IndexedError, _Mapping]]] = ...) -> None: ...

class IdentityResult(_message.Message):
    __slots__ = ("identity", "error")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    identity: Identity
    error: _common_pb2.ItemError
    def __init__(self, identity: _Optional[_Union[Identity, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("similarity", "nearest", "calibrated")
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    similarity: float
    nearest: float
    calibrated: float
    def __init__(self, similarity: _Optional[float] = ..., nearest: _Optional[float] = ..., calibrated: _Optional[float] = ...) -> None: ...

class PromptPair(_message.Message):
    __slots__ = ("image", "text")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    image: _common_pb2.Image
    text: str
    def __init__(self, image: _Optional[_Union[_common_pb2.Image, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class ScorePromptRequest(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[PromptPair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[PromptPair, _Mapping]]] = ...) -> None: ...

class ScorePromptResponse(_message.Message):
    __slots__ = ("results", "overall")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    OVERALL_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PromptResult]
    overall: Interval
    def __init__(self, results: _Optional[_Iterable[_Union[PromptResult, _Mapping]]] = ..., overall: _Optional[_Union[Interval, _Mapping]] = ...) -> None: ...

class PromptResult(_message.Message):
    __slots__ = ("similarity", "error")
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    similarity: float
    error: _common_pb2.ItemError
    def __init__(self, similarity: _Optional[float] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

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
