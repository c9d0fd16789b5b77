//! One class a position: what a segmentation decides, and how good a mask is.
//!
//! ```text
//! Dice  D_c = 2|A_c ∩ B_c| / (|A_c| + |B_c|)      IoU  J_c = |A_c ∩ B_c| / |A_c ∪ B_c|
//! quality of a mask    mean of D_c over the classes that occur in it or in the truth
//! ```
//!
//! A mask is never exactly right, so a goal is reached by degrees that the task states ([`MaskTolerance`]), as in the rule
//! of ROG (Daza et al., MICCAI 2021): a sample is robust as long as its Dice stays above a stated value.

use serde::{Deserialize, Serialize};

use crate::{Error, argmax};

/// Class of a position that nothing is said about: it counts in no measure and no objective.
pub const IGNORED: u8 = 255;

/// When a mask counts as right or as reached, and a class as present.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskTolerance {
    /// Least quality, by the truth, of a mask that is right; above 0, at most 1.
    pub right: f32,
    /// Least quality, by the target, of a mask that has reached it; above 0, at most 1.
    pub reached: f32,
    /// Share of the positions from which a class counts as present in a mask; above 0, at most 1. A class is hidden
    /// below it and invented from it on.
    pub present: f32,
}

impl Default for MaskTolerance {
    /// Values chosen here; `nocebo train` sets `right` to 0.9 of the quality on validation.
    fn default() -> Self {
        Self { right: 0.5, reached: 0.9, present: 0.01 }
    }
}

/// A segmentation: one class a position of a sample. Logits are `[classes, *shape]` a sample.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Segmentation {
    /// Number of classes, 2 to 255.
    pub classes: usize,
    /// Sides of a mask, such as `[height, width]`.
    pub shape: Vec<usize>,
    /// For two classes told apart by a single logit (`[1, *shape]` a sample): class 1 lies above this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// What counts as right, reached and present.
    #[serde(default)]
    pub tolerance: MaskTolerance,
}

/// How far two masks agree on one class, in positions.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// Positions of the class in the truth.
    pub truth: u64,
    /// Positions of the class in the decision.
    pub decision: u64,
    /// Positions of the class in both.
    pub both: u64,
}

impl Overlap {
    /// Dice coefficient; none for a class that occurs in neither mask.
    pub fn dice(&self) -> Option<f64> {
        let sum = self.truth + self.decision;
        (sum > 0).then(|| 2.0 * self.both as f64 / sum as f64)
    }

    /// Intersection over union; none for a class that occurs in neither mask.
    pub fn iou(&self) -> Option<f64> {
        let union = self.truth + self.decision - self.both;
        (union > 0).then(|| self.both as f64 / union as f64)
    }
}

/// Mean Dice over the classes that occur; 1 where none does.
pub fn mean_dice(overlaps: &[Overlap]) -> f64 {
    let dices: Vec<f64> = overlaps.iter().filter_map(Overlap::dice).collect();
    if dices.is_empty() { 1.0 } else { dices.iter().sum::<f64>() / dices.len() as f64 }
}

impl Segmentation {
    /// Checks classes, sides and tolerances.
    ///
    /// # Errors
    ///
    /// When a number is out of range.
    pub fn check(&self) -> Result<(), Error> {
        if !(2..=usize::from(IGNORED)).contains(&self.classes) || (self.threshold.is_some() && self.classes != 2) {
            let must_be = "2 to 255, and 2 with a threshold";
            return Err(Error::invalid("classes", must_be, self.classes));
        }
        let elements = self.shape.iter().try_fold(self.classes, |product, &side| product.checked_mul(side));
        if self.shape.is_empty() || elements.is_none_or(|elements| elements == 0) {
            return Err(Error::invalid("shape", "one or more sides, each at least 1", format!("{:?}", self.shape)));
        }
        let MaskTolerance { right, reached, present } = self.tolerance;
        if [right, reached, present].iter().any(|share| !(*share > 0.0 && *share <= 1.0))
            || self.threshold.is_some_and(|threshold| !threshold.is_finite())
        {
            let got = format!("{:?} and {:?}", self.tolerance, self.threshold);
            return Err(Error::invalid("tolerance", "above 0 and at most 1, with a finite threshold", got));
        }
        Ok(())
    }

    /// Positions of a mask.
    pub fn positions(&self) -> usize {
        self.shape.iter().product()
    }

    /// Logits a position.
    pub fn logits(&self) -> usize {
        if self.threshold.is_some() { 1 } else { self.classes }
    }

    /// Puts one logit a class of `position` into `logits`. A single logit becomes `[threshold, logit]`.
    pub(crate) fn gather(&self, outputs: &[f32], position: usize, logits: &mut [f32]) {
        if let Some(threshold) = self.threshold {
            logits[0] = threshold;
            logits[1] = outputs[position];
        } else {
            let positions = self.positions();
            for (class, logit) in logits.iter_mut().enumerate() {
                *logit = outputs[class * positions + position];
            }
        }
    }

    /// Adds the derivative by the class logits of `position`, times `share`, to that by the outputs.
    pub(crate) fn scatter(&self, slopes: &[f32], share: f64, position: usize, cotangent: &mut [f32]) {
        if self.threshold.is_some() {
            cotangent[position] += (share * f64::from(slopes[1])) as f32;
        } else {
            let positions = self.positions();
            for (class, slope) in slopes.iter().enumerate() {
                cotangent[class * positions + position] += (share * f64::from(*slope)) as f32;
            }
        }
    }

    /// Class of each position; equal logits go to the lower class.
    pub fn decide(&self, outputs: &[f32]) -> Vec<u8> {
        let mut logits = vec![0.0; self.classes];
        (0..self.positions())
            .map(|position| {
                self.gather(outputs, position, &mut logits);
                argmax(&logits) as u8
            })
            .collect()
    }

    /// Agreement of a decision with a truth, class by class. Positions ignored in the truth do not count.
    pub fn overlaps(&self, truth: &[u8], decision: &[u8]) -> Vec<Overlap> {
        let mut overlaps = vec![Overlap::default(); self.classes];
        for (&truth, &decision) in truth.iter().zip(decision).filter(|(truth, _)| **truth != IGNORED) {
            // A decision never ignores; a mask used as one may.
            if let Some(overlap) = overlaps.get_mut(usize::from(decision)) {
                overlap.decision += 1;
                overlap.both += u64::from(truth == decision);
            }
            overlaps[usize::from(truth)].truth += 1;
        }
        overlaps
    }

    /// Whether a decision with these overlaps is right.
    pub fn is_right(&self, overlaps: &[Overlap]) -> bool {
        mean_dice(overlaps) >= f64::from(self.tolerance.right)
    }

    /// Whether a decision with these overlaps has reached the mask they were measured by.
    pub fn is_reached(&self, overlaps: &[Overlap]) -> bool {
        mean_dice(overlaps) >= f64::from(self.tolerance.reached)
    }

    /// Whether a class covers enough of the positions that are not ignored to count as present.
    pub fn is_present(&self, mask: &[u8], class: usize) -> bool {
        let counted = mask.iter().filter(|known| **known != IGNORED).count();
        let covered = mask.iter().filter(|known| usize::from(**known) == class).count();
        covered > 0 && covered as f64 >= f64::from(self.tolerance.present) * counted as f64
    }

    pub(crate) fn check_mask(&self, mask: &[u8]) -> Result<(), Error> {
        if mask.len() != self.positions() {
            return Err(Error::mismatch("positions of a mask", self.positions(), mask.len()));
        }
        if let Some(class) = mask.iter().find(|class| **class != IGNORED && usize::from(**class) >= self.classes) {
            let expected = format!("a class below {}, or {IGNORED} for ignored", self.classes);
            return Err(Error::mismatch("class in a mask", expected, class));
        }
        if mask.iter().all(|class| *class == IGNORED) {
            return Err(Error::mismatch("mask", "a position that is not ignored", "none"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three classes on 2×2 positions.
    pub(crate) fn three_classes() -> Segmentation {
        Segmentation { classes: 3, shape: vec![2, 2], threshold: None, tolerance: MaskTolerance::default() }
    }

    #[test]
    fn every_position_is_decided_by_itself() {
        let outputs = [1.0, 0.0, 0.0, 5.0, 0.0, 2.0, 0.0, 5.0, 0.0, 0.0, 0.5, 4.0];
        assert_eq!(three_classes().decide(&outputs), [0, 1, 2, 0]);
        let single = Segmentation { classes: 2, threshold: Some(0.5), ..three_classes() };
        single.check().unwrap();
        assert_eq!((single.logits(), single.decide(&[0.6, 0.5, -3.0, 9.0])), (1, vec![1, 0, 0, 1]));
    }

    #[test]
    fn overlaps_by_hand() {
        let task = three_classes();
        let overlaps = task.overlaps(&[0, 0, 1, IGNORED], &[0, 1, 1, 2]);
        assert_eq!(overlaps[0], Overlap { truth: 2, decision: 1, both: 1 });
        assert_eq!(overlaps[1], Overlap { truth: 1, decision: 2, both: 1 });
        assert_eq!((overlaps[2].dice(), overlaps[2].iou()), (None, None));
        assert_eq!((overlaps[0].dice(), overlaps[0].iou()), (Some(2.0 / 3.0), Some(0.5)));
        assert!((mean_dice(&overlaps) - 2.0 / 3.0).abs() < 1e-12);
        assert!(task.is_right(&overlaps) && !task.is_reached(&overlaps));
    }

    #[test]
    fn a_class_is_present_from_its_share_on() {
        let tolerance = MaskTolerance { present: 0.5, ..MaskTolerance::default() };
        let task = Segmentation { tolerance, ..three_classes() };
        assert!(task.is_present(&[0, 1, 1, 2], 1) && !task.is_present(&[0, 1, 1, 2], 2));
        assert!(task.is_present(&[0, 1, IGNORED, IGNORED], 1));
    }

    #[test]
    fn tasks_and_masks_out_of_range_are_refused() {
        let good = three_classes();
        good.check().unwrap();
        let tolerance = |right| MaskTolerance { right, ..MaskTolerance::default() };
        for wrong in [
            Segmentation { classes: 1, ..good.clone() },
            Segmentation { classes: 256, ..good.clone() },
            Segmentation { threshold: Some(0.0), ..good.clone() },
            Segmentation { shape: vec![], ..good.clone() },
            Segmentation { shape: vec![0, 4], ..good.clone() },
            Segmentation { shape: vec![usize::MAX, 2], ..good.clone() },
            Segmentation { tolerance: tolerance(0.0), ..good.clone() },
            Segmentation { tolerance: tolerance(f32::NAN), ..good.clone() },
            Segmentation { classes: 2, threshold: Some(f32::INFINITY), ..good.clone() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        assert!(good.check_mask(&[0, 1, 2, IGNORED]).is_ok());
        assert!(good.check_mask(&[0, 1, 2]).is_err() && good.check_mask(&[0, 1, 2, 3]).is_err());
        assert!(good.check_mask(&[IGNORED; 4]).is_err());
    }
}
