//! An epsilon in files: a number, or `inf`, which JSON has no number for.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Number(f32),
    Word(Word),
}

#[derive(Deserialize, Serialize)]
enum Word {
    #[serde(rename = "inf")]
    Infinite,
}

impl From<f32> for Written {
    fn from(epsilon: f32) -> Self {
        if epsilon == f32::INFINITY { Self::Word(Word::Infinite) } else { Self::Number(epsilon) }
    }
}

impl From<Written> for f32 {
    fn from(written: Written) -> Self {
        match written {
            Written::Number(epsilon) => epsilon,
            Written::Word(Word::Infinite) => Self::INFINITY,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(crate) fn serialize<S: Serializer>(epsilon: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    Written::from(*epsilon).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Written::deserialize(deserializer).map(f32::from)
}

pub(crate) mod list {
    use super::{Deserialize, Deserializer, Serializer, Written};

    pub(crate) fn serialize<S: Serializer>(epsilons: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(epsilons.iter().map(|&epsilon| Written::from(epsilon)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        Ok(Vec::<Written>::deserialize(deserializer)?.into_iter().map(f32::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use nocebo_core::Norm;

    use crate::Threat;

    #[test]
    fn an_infinite_epsilon_survives_json_and_toml() {
        let threat = Threat { norm: Norm::L2, epsilons: vec![0.1, 8.0, f32::INFINITY] };
        let json = serde_json::to_string(&threat).unwrap();
        assert_eq!(json, r#"{"norm":"l2","epsilons":[0.1,8.0,"inf"]}"#);
        assert_eq!(serde_json::from_str::<Threat>(&json).unwrap(), threat);
        assert_eq!(toml::from_str::<Threat>("norm = 'l2'\nepsilons = [0.1, 8.0, inf]").unwrap(), threat);
        assert!(serde_json::from_str::<Threat>(r#"{"norm":"l2","epsilons":["infinite"]}"#).is_err());
    }
}
