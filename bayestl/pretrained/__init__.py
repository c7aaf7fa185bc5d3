"""Published networks: backbones that can be cut anywhere, published weights under our names; word vectors."""

from bayestl.pretrained import tables
from bayestl.pretrained._backbone import Backbone
from bayestl.pretrained._bert import bert, first_token, mean_of_tokens
from bayestl.pretrained._cifar_resnet import cifar_resnet20, cifar_resnet56
from bayestl.pretrained._layers import global_average
from bayestl.pretrained._load import Loaded, load
from bayestl.pretrained._mobilenet import mobilenet
from bayestl.pretrained._products import as_products
from bayestl.pretrained._read import read
from bayestl.pretrained._read_vectors import read_vectors
from bayestl.pretrained._report import LoadReport, Mismatch
from bayestl.pretrained._resnet import resnet18, resnet50
from bayestl.pretrained._vectors import Skipped, WordVectors
from bayestl.pretrained._vgg import vgg16
from bayestl.pretrained._vit import vit_b16, vit_ti16
from bayestl.pretrained._weight_file import WeightFile
from bayestl.pretrained._weights import Weights

__all__ = [
    "Backbone",
    "LoadReport",
    "Loaded",
    "Mismatch",
    "Skipped",
    "WeightFile",
    "Weights",
    "WordVectors",
    "as_products",
    "bert",
    "cifar_resnet20",
    "cifar_resnet56",
    "first_token",
    "global_average",
    "load",
    "mean_of_tokens",
    "mobilenet",
    "read",
    "read_vectors",
    "resnet18",
    "resnet50",
    "tables",
    "vgg16",
    "vit_b16",
    "vit_ti16",
]
