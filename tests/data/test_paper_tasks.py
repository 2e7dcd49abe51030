"""The papers' data sets from records to an accuracy: text head, two linear steps, evaluation.

By the code that the presets run, on a random CLIP of one block that transformers writes. The heads
are padded to one shape in training as there, so the tasks share what is compiled.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.compare import PAPER_TASKS
from experiments import protocol, vectors
from experiments.stand_ins import model as stand_in_model
from linearize import models
from linearize.config import CompareConfig, DataConfig, HeadConfig, ModelConfig
from linearize.data import VISION, Loader, Reading
from linearize.data.paper import open_tfds, split_vision
from linearize.data.vision import SUITES
from linearize.methods import LINEAR
from linearize.models.heads import apply_head
from linearize.study import Store
from linearize.train import OptimConfig, TrainConfig

pytest.importorskip("torch")
pytest.importorskip("transformers")
tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.network,
    pytest.mark.usefixtures("quick_compilation"),
]

EVERY = (*PAPER_TASKS, *SUITES, "imagenet")
MOCKED = tuple(name for name in EVERY if VISION[name].tfds)
SIDE, BATCH, TEST = 32, 8, 12


@pytest.fixture(scope="module")
def config(tmp_path_factory, data_dir, suites_dir):
    whole = tmp_path_factory.mktemp("whole")
    places = {place.name: place for d in (data_dir, suites_dir) for place in d.iterdir()}
    for name, place in places.items():  # both have ``downloads``
        (whole / name).symlink_to(place)
    folder = tmp_path_factory.mktemp("stand_in") / "clip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stand_in_model.VISION, "num_hidden_layers", 1)
        patch.setitem(stand_in_model.TEXT, "num_hidden_layers", 1)
        stand_in_model.make(folder)
    recipe = TrainConfig(
        optim=OptimConfig(lr=1e-3, weight_decay=0.1, decay="theta", warmup=1, clip=1.0),
        steps=2,
        batch_size=BATCH,
        checkpoint_every=0,
        tensorboard=False,
    )
    return CompareConfig(
        model=ModelConfig(name="clip", weights=str(folder), image_size=SIDE, blocks=None),
        data=DataConfig(
            tasks=EVERY[:-1],
            control=EVERY[-1],
            image_size=SIDE,
            train=None,
            validation=TEST,
            test=TEST,
            data_dir=str(whole),
            workers=2,
        ),
        head=HeadConfig(kind="text"),
        nonlinear=recipe,
        linear=recipe,
        batch_size=1,  # one shape, however few test examples there are
    )


@pytest.fixture(scope="module")
def every(config):
    """All of them from array_record and folders, with the heads of their class names."""
    return protocol.study(config, protocol.load_tasks(config, control=True), 0, Store())


@pytest.fixture(scope="module")
def mocked(every, tmp_path_factory):
    """The same, but for the images and labels, which TFDS draws."""
    folder, tasks = tmp_path_factory.mktemp("mocked"), {}
    for name in MOCKED:
        with tfds.testing.mock_data(num_examples=TEST):
            builder = tfds.builder(VISION[name].tfds, data_dir=str(folder))
            opened = open_tfds(name, VISION[name], builder, None)
            tasks[name] = split_vision(name, VISION[name], opened, SIDE, None, 0, Reading(folder))
    return every.but(tasks=every.tasks | tasks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "name"),
    [
        *(("every", name) for name in EVERY),
        *(("mocked", name) for name in MOCKED),
    ],
)
def test_from_records_to_an_accuracy(source, name, config, request, tmp_path):
    study, row = request.getfixturevalue(source), VISION[name]
    task, head = study.tasks[name], protocol.head(study.objectives[name])
    assert head.kernel.shape == (stand_in_model.PROJECTION, row.classes)
    names = models.prompts.class_names(name, task.classes)
    assert len(np.unique(head.kernel, axis=1).T) == len(set(names)) >= row.classes - 2

    examples = {"inputs": task.train.inputs, "labels": task.train.labels}
    fed = protocol.for_training(config.data, examples)
    assert isinstance(fed, Loader)
    assert fed.augment
    kept = study.but(store=tmp_path)
    tau = LINEAR.train(kept, name)
    assert (tmp_path / "linear" / name / "task_vector.safetensors").is_file()
    assert 0 < tau.norm() < 10

    view = study.view(LINEAR, {name: tau})
    terms = view.terms(task.test)
    logits = [np.asarray(apply_head(head, jnp.asarray(terms.at([a])))) for a in (0.0, 1.0)]
    assert logits[1].shape == (len(task.test), row.classes)
    assert np.isfinite(logits[1]).all()
    assert np.abs(logits[1] - logits[0]).max() > 1e-3
    accuracy = study.measure(view, {name: [0.0, 1.0]}, name, "test")
    by_hand = [(x.argmax(1) == task.test.labels).mean() for x in logits]
    np.testing.assert_allclose(accuracy, by_hand)


@pytest.mark.slow
def test_analyses_look_at_the_first_examples(every):
    few = vectors.first(every.tasks, validation=3, test=5)
    for name in EVERY:
        whole, cut = every.tasks[name], few[name]
        assert len(cut.train) == len(whole.train)
        assert len(cut.validation) == min(3, len(whole.validation))
        assert len(cut.test) == min(5, len(whole.test))
        np.testing.assert_array_equal(cut.test.inputs, whole.test.inputs[:5])
        assert len(set(cut.test.labels)) == min(5, len(set(whole.test.labels)))
