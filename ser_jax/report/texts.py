"""What a report says about results, pictures and runs, and where it finds them."""

from collections.abc import Mapping

# Part of the report -> task -> what its numbers are.
TASKS: Mapping[str, Mapping[str, str]] = {
    "Accuracy": {
        "knn": "k-NN on the class token, by number of neighbours.",
        "linear": "Linear head, chosen on held-out training images.",
        "logreg": "Logistic regression on the class token.",
        "finetune": "The whole encoder, fine-tuned.",
        "shifted": "The linear head on other test sets.",
    },
    "Collapse": {
        "health": "Class tokens of the evaluation split: cls_std near 0 is collapse, "
        "healthy_std is that of evenly spread directions.",
    },
    "Equivariance": {
        "equivariance": "Tokens of the moved picture against tokens moved along.",
        "seis": "SEIS, by layer.",
        "lie_derivative": "Change under an infinitesimal move; 0 is equivariant.",
        "rotation_probe": "How often a linear probe names the turn out of four.",
        "equimod": "EquiMod's predictor against none.",
    },
    "Robustness": {
        "corruptions": "The linear head on corrupted pictures.",
        "perturbations": "How often its prediction changes within a clip.",
    },
    "FLOPs": {"flops": "FLOPs of one training step."},
}
# They need more than a run and its data: a report does without.
OPTIONAL_TASKS = ("finetune", "shifted", "equimod")
# Picture -> its title, and how to read it.
PICTURES = {
    "attention": (
        "What the class token attends to",
        "A row is a picture, a column a head of the last block; the brighter a patch, "
        "the more the class token attends to it, from 0 to each map's largest value.",
    ),
    "patch_pca": (
        "What the patch tokens say",
        "Red, green and blue are the first three principal components of all these "
        "pictures' tokens: patches of one colour say the same, in any picture.",
    ),
    "equivariance": (
        "Transformed versus recomputed",
        "In an equivariant encoder the tokens moved along, ρF(x), look like those of "
        "the moved picture, F(gx), and the last column, 1 − cos patch by patch, is "
        "dark; colours are principal components of F(x) alone, and grey has no "
        "counterpart.",
    ),
}
# Main results -> where they are.
OVERVIEW = {
    "k-NN top-1, k = 20": "knn/top1_k20",
    "linear top-1": "linear/top1",
    "logistic regression top-1": "logreg/top1",
    "fine-tuned top-1": "finetune/top1",
    "top-1 on corrupted pictures": "corruptions/top1",
    "RankMe": "health/rankme",
    "FLOPs over the base's": "flops/ratio",
}
# What a run is -> where its config, results and summary have it.
SETTINGS = {
    "objective": "objective.name",
    "regularizer": "regularizer.name",
    "model": "model.variant",
    "data set": "dataset.name",
}
EVALUATED = {
    "evaluated step": "step",
    "evaluated encoder": "encoder",
    "evaluated on": "device",
    "date": "date",
    "seed": "seed",
    "training images": "num_train",
    "evaluation images": "num_eval",
}
TRAINED = {"trained on": "device", "images/s": "images_per_s", "seconds": "wall_s"}
