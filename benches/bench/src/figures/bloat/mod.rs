use crate::args::Args;
pub(crate) async fn measure(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
