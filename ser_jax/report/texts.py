"""What a report says about pictures and runs, and where it finds it."""

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
    "detections": (
        "What the detector finds",
        "On the left what is there, on the right what was found, with its score; a "
        "class has one colour, and a dashed box holds a crowd.",
    ),
    "losses": (
        "The detectors' training",
        "The loss of each seed, and its terms, means over seeds.",
    ),
    "neighbours": (
        "Nearest neighbours",
        "On the left pictures of the evaluation split; beside each the training "
        "pictures whose features are nearest, with their cosine and class.",
    ),
    "precision_recall": (
        "Precision over recall",
        "The area below a curve is its AP: on the left the mean over classes, on the "
        "right each class, grey but for the best and the worst.",
    ),
}
# What a run is -> where its config, results and summary have it.
SETTINGS = {
    "objective": "objective.name",
    "regularizer": "regularizer.name",
    "model": "model.variant",
    "data set": "dataset.name",
}
EVALUATED = {
    "weights": "weights",
    "layout": "layout",
    "evaluated step": "step",
    "evaluated encoder": "encoder",
    "evaluated on": "device",
    "date": "date",
    "seed": "seed",
    "training images": "num_train",
    "evaluation images": "num_eval",
}
TRAINED = {"trained on": "device", "images/s": "images_per_s", "seconds": "wall_s"}
