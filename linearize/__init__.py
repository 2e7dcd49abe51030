"""Fine-tune pretrained models in their tangent space."""
