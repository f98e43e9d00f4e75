"""The R-CNN family, readable in one sitting.

Conventions
-----------
- Boxes are ``(x1, y1, x2, y2)``, float, in pixels of the image at hand; width = x2 - x1 (never + 1). Sizes are (H, W).
- Labels: 0 background, 1..K foreground, -1 "ignored". ``num_classes`` is K, without background.
  The mask head has K channels; a label's channel is label - 1.
- A RoI is ``(batch_index, x1, y1, x2, y2)``; RoIs have shape (R, 5).
- Images go in as a list of (3, H, W) floats in [0, 1] or as one (B, 3, H, W) batch. Targets are one dict an image, with
  ``boxes (n, 4)``, ``labels (n,)``, ``masks (n, H, W)``. In training mode a model returns a dict of losses, in
  evaluation mode a list of dicts ``boxes, labels, scores[, masks]``: torchvision's contract.
- Shapes stand in signatures, as ``Float[Tensor, "n 4"]``, and are checked under pytest only.
- Device and dtype follow the inputs. No function changes its arguments. Randomness takes a ``generator``.
- Errors at public boundaries say what came, what was expected, and what to do.

Reading order
-------------
``ops``: what the lessons teach, as plain functions on tensors. ``models.rcnn``: the detectors, and from there whatever
it names. ``datasets`` gives images, ``training.train`` learns from them and ``training.evaluate`` says how well.
``explore`` draws in notebooks, ``classroom`` checks a learner's own versions, ``__main__`` is the command line.
A folder imports only from its own floor or a floor below: ``ops`` < ``models``, ``datasets`` < ``training``,
``explore``, ``classroom`` < ``commands``, ``doctor`` < ``__main__``.
"""

__version__ = "0.1.0"
